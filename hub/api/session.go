package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/hub/access"
)

func (a *API) sessionRoutes() {
	tag := []string{"session"}
	register(a, huma.Operation{OperationID: "login", Method: http.MethodPost, Path: "/api/v1/login", Tags: tag,
		Summary: "Log in with a password", MaxBodyBytes: smallBody,
		Description: "Sets the cookie of a new session. Guesses are slowed down; the answer does not tell whether the name exists.",
		Errors:      []int{400, 401, 403, 422, 429, 503}}, a.login)
	register(a, huma.Operation{OperationID: "claim-link", Method: http.MethodPost, Path: "/api/v1/links/claim", Tags: tag,
		Summary: "Spend a one-time link", MaxBodyBytes: smallBody,
		Description: "Sets the person's password, unless the link is only for logging in, and the cookie of a new session. The setup " +
			"link that the hub shows at its start is such a link.",
		Errors: []int{400, 403, 422, 503}}, a.claim)
	register(a, huma.Operation{OperationID: "logout", Method: http.MethodPost, Path: "/api/v1/logout", Tags: tag,
		Summary: "Log out", DefaultStatus: http.StatusNoContent, Errors: []int{401, 403}}, a.logout)
	register(a, huma.Operation{OperationID: "me", Method: http.MethodGet, Path: "/api/v1/me", Tags: tag,
		Summary: "Who the credential of this request belongs to", Errors: []int{401}}, a.me)
	register(a, huma.Operation{OperationID: "change-password", Method: http.MethodPost, Path: "/api/v1/me/password", Tags: tag,
		Summary: "Change the own password", MaxBodyBytes: smallBody,
		Description: "Ends all sessions of the person and sets the cookie of a new one.",
		Errors:      []int{400, 401, 403, 422, 429, 503}}, a.changePassword)
}

// sessionView is a session that has just begun.
type sessionView struct {
	Name    string `json:"name"`
	Role    string `json:"role" enum:"viewer,operator,admin"`
	Expires int64  `json:"expires" doc:"When the session ends at the latest, Unix ms"`
}

type sessionOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      sessionView
}

func (a *API) begin(ctx context.Context, s *access.NewSession) *sessionOutput {
	return &sessionOutput{
		SetCookie: *a.Access.SetCookie(*s, who(ctx).secure),
		Body:      sessionView{Name: s.User, Role: s.Role.String(), Expires: millis(s.Expires)},
	}
}

type loginInput struct {
	Body struct {
		Name     string        `json:"name" maxLength:"64"`
		Password access.Secret `json:"password" maxLength:"1024"`
	}
}

func (a *API) login(ctx context.Context, in *loginInput) (*sessionOutput, error) {
	c := who(ctx)
	s, err := a.Access.Login(ctx, access.LoginRequest{
		Name: in.Body.Name, Password: in.Body.Password, Source: c.remote, Agent: c.agent, Previous: c.cookie,
	})
	if err != nil {
		return nil, err
	}
	return a.begin(ctx, &s), nil
}

type claimInput struct {
	Body struct {
		Link     access.Secret `json:"link" maxLength:"64" doc:"The secret of the link: what stands after link= in its address"`
		Password access.Secret `json:"password,omitempty" maxLength:"1024" doc:"The new password. Not used for a link that only logs in"`
	}
}

func (a *API) claim(ctx context.Context, in *claimInput) (*sessionOutput, error) {
	c := who(ctx)
	s, err := a.Access.ClaimLink(ctx, access.ClaimRequest{
		Secret: in.Body.Link, Password: in.Body.Password, Source: c.remote, Agent: c.agent,
	})
	if err != nil {
		return nil, err
	}
	return a.begin(ctx, &s), nil
}

type logoutOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
}

func (a *API) logout(ctx context.Context, _ *struct{}) (*logoutOutput, error) {
	c := who(ctx)
	if err := a.Access.Logout(ctx, c.cookie); err != nil {
		return nil, err
	}
	return &logoutOutput{SetCookie: *a.Access.DropCookie(c.secure)}, nil
}

type meOutput struct {
	Body struct {
		Kind    string   `json:"kind" enum:"person,api,device,enrolment,local" doc:"What sort of credential it is"`
		Name    string   `json:"name" doc:"As in the audit log"`
		Role    string   `json:"role,omitempty" enum:"viewer,operator,admin"`
		Device  string   `json:"device,omitempty" doc:"The device of a device token"`
		Devices []string `json:"devices,omitempty" doc:"The only devices that the token is for"`
	}
}

func (a *API) me(ctx context.Context, _ *struct{}) (*meOutput, error) {
	id := who(ctx).id
	out := &meOutput{}
	out.Body.Kind, out.Body.Name = string(id.Kind), id.Name()
	out.Body.Device, out.Body.Devices = string(id.Device), id.Devices
	if id.Role != access.NoRole {
		out.Body.Role = id.Role.String()
	}
	return out, nil
}

type changePasswordInput struct {
	Body struct {
		Old access.Secret `json:"old,omitempty" maxLength:"1024" doc:"The password until now. Absent if there was none"`
		New access.Secret `json:"new" maxLength:"1024"`
	}
}

func (a *API) changePassword(ctx context.Context, in *changePasswordInput) (*sessionOutput, error) {
	c := who(ctx)
	s, err := a.Access.ChangePassword(ctx, c.id, access.PasswordChange{
		Old: in.Body.Old, New: in.Body.New, Source: c.remote, Agent: c.agent,
	})
	if err != nil {
		return nil, err
	}
	return a.begin(ctx, &s), nil
}
