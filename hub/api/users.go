package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/hub/access"
)

// userView is what may be known about a person. Times are Unix milliseconds.
type userView struct {
	Name        string `json:"name"`
	Role        string `json:"role" enum:"viewer,operator,admin"`
	HasPassword bool   `json:"has_password" doc:"False until the first link is claimed"`
	Created     int64  `json:"created" doc:"Unix ms"`
	By          string `json:"by,omitempty" doc:"Who made the account"`
	Sessions    int    `json:"sessions" doc:"Where the person is logged in"`
	LastSeen    int64  `json:"last_seen,omitempty" doc:"Unix ms"`
}

// linkView is a one-time link with its secret.
type linkView struct {
	User    string `json:"user"`
	Purpose string `json:"purpose" enum:"password,login"`
	URL     string `json:"url,omitempty" doc:"Address to open. The secret stands in its fragment, which browsers keep to themselves"`
	Link    string `json:"link" doc:"The secret, for POST /api/v1/links/claim. It works once"`
	Expires int64  `json:"expires" doc:"Unix ms"`
}

// LinkURL returns the address of a one-time link below base, the address of the hub.
func LinkURL(base string, link access.Link) string { return base + "/#link=" + link.Secret.Reveal() }

func (a *API) userRoutes() {
	tag := []string{"users"}
	register(a, huma.Operation{OperationID: "list-users", Method: http.MethodGet, Path: "/api/v1/users", Tags: tag,
		Summary: "List people", Errors: []int{401, 403}}, a.listUsers)
	register(a, huma.Operation{OperationID: "add-user", Method: http.MethodPost, Path: "/api/v1/users", Tags: tag,
		Summary: "Add a person", DefaultStatus: http.StatusCreated, MaxBodyBytes: smallBody,
		Description: "The answer has a one-time link with which the person sets a password.",
		Errors:      []int{400, 401, 403, 409, 422, 503}}, a.addUser)
	register(a, huma.Operation{OperationID: "change-user", Method: http.MethodPatch, Path: "/api/v1/users/{name}", Tags: tag,
		Summary: "Give a person another role", DefaultStatus: http.StatusNoContent, MaxBodyBytes: smallBody,
		Errors: []int{400, 401, 403, 404, 409, 422, 503}}, a.changeUser)
	register(a, huma.Operation{OperationID: "delete-user", Method: http.MethodDelete, Path: "/api/v1/users/{name}", Tags: tag,
		Summary: "Remove a person", DefaultStatus: http.StatusNoContent,
		Description: "Ends what the person has open. Tokens that the person made stay.",
		Errors:      []int{401, 403, 404, 409, 503}}, a.deleteUser)
	register(a, huma.Operation{OperationID: "link-user", Method: http.MethodPost, Path: "/api/v1/users/{name}/links", Tags: tag,
		Summary: "Make a one-time link for a person", DefaultStatus: http.StatusCreated, MaxBodyBytes: smallBody,
		Description: "It is good for 15 minutes. Links that log in without a password are made by the control socket only.",
		Errors:      []int{400, 401, 403, 404, 422, 503}}, a.linkUser)
	register(a, huma.Operation{OperationID: "list-sessions", Method: http.MethodGet, Path: "/api/v1/users/{name}/sessions", Tags: tag,
		Summary: "List where a person is logged in", Description: "People may ask for their own.", Errors: []int{401, 403}}, a.listSessions)
	register(a, huma.Operation{OperationID: "end-session", Method: http.MethodDelete, Path: "/api/v1/users/{name}/sessions/{session}",
		Tags: tag, Summary: "End a session", DefaultStatus: http.StatusNoContent, Description: "People may end their own.",
		Errors: []int{401, 403, 404, 503}}, a.endSession)
}

type listUsersOutput struct {
	Body struct {
		Users []userView `json:"users"`
	}
}

func viewUser(u *access.UserInfo) userView {
	return userView{Name: u.Name, Role: u.Role.String(), HasPassword: u.HasPassword, Created: millis(u.Created), By: u.By,
		Sessions: u.Sessions, LastSeen: millis(u.LastSeen)}
}

func (a *API) listUsers(ctx context.Context, _ *struct{}) (*listUsersOutput, error) {
	list, err := a.Access.Users(who(ctx).id)
	if err != nil {
		return nil, err
	}
	out := &listUsersOutput{}
	out.Body.Users = make([]userView, len(list))
	for i := range list {
		out.Body.Users[i] = viewUser(&list[i])
	}
	return out, nil
}

type addUserInput struct {
	Body struct {
		Name string `json:"name" maxLength:"64"`
		Role string `json:"role,omitempty" enum:"viewer,operator,admin" default:"viewer"`
	}
}

type addUserOutput struct {
	Body struct {
		userView
		Link *linkView `json:"link,omitempty"`
	}
}

func (a *API) addUser(ctx context.Context, in *addUserInput) (*addUserOutput, error) {
	by := who(ctx).id
	role, err := access.ParseRole(in.Body.Role)
	if err != nil {
		return nil, err
	}
	made, err := a.Access.CreateUser(ctx, by, in.Body.Name, role)
	if err != nil {
		return nil, err
	}
	out := &addUserOutput{}
	out.Body.userView = viewUser(&made)
	link, err := a.Access.UserLink(ctx, by, made.Name, access.SetPassword)
	if err != nil {
		f := a.outward(ctx, err)
		f.detail = "The person was added, but has no link yet: make one with POST /api/v1/users/" + made.Name + "/links. " + f.detail
		return nil, f
	}
	out.Body.Link = a.viewLink(link)
	return out, nil
}

func (a *API) viewLink(l access.Link) *linkView {
	v := &linkView{User: l.User, Purpose: string(l.Purpose), Link: l.Secret.Reveal(), Expires: millis(l.Expires)}
	if a.LinkBase != "" {
		v.URL = LinkURL(a.LinkBase, l)
	}
	return v
}

type userInput struct {
	Name string `path:"name" maxLength:"64"`
}

type changeUserInput struct {
	Name string `path:"name" maxLength:"64"`
	Body struct {
		Role string `json:"role" enum:"viewer,operator,admin"`
	}
}

func (a *API) changeUser(ctx context.Context, in *changeUserInput) (*struct{}, error) {
	role, err := access.ParseRole(in.Body.Role)
	if err != nil {
		return nil, err
	}
	return nil, a.Access.SetRole(ctx, who(ctx).id, in.Name, role)
}

func (a *API) deleteUser(ctx context.Context, in *userInput) (*struct{}, error) {
	return nil, a.Access.DeleteUser(ctx, who(ctx).id, in.Name)
}

type linkUserInput struct {
	Name string `path:"name" maxLength:"64"`
	Body struct {
		Purpose string `json:"purpose,omitempty" enum:"password,login" default:"password"`
	} `required:"false"`
}

type linkUserOutput struct{ Body *linkView }

func (a *API) linkUser(ctx context.Context, in *linkUserInput) (*linkUserOutput, error) {
	purpose := access.SetPassword
	if in.Body.Purpose != "" {
		purpose = access.Purpose(in.Body.Purpose)
	}
	link, err := a.Access.UserLink(ctx, who(ctx).id, in.Name, purpose)
	if err != nil {
		return nil, err
	}
	return &linkUserOutput{a.viewLink(link)}, nil
}

// loginView is one place where a person is logged in.
type loginView struct {
	ID       string `json:"id"`
	Created  int64  `json:"created" doc:"Unix ms"`
	LastSeen int64  `json:"last_seen" doc:"Unix ms, about"`
	Expires  int64  `json:"expires" doc:"Unix ms, if it is not used any more"`
	Source   string `json:"source,omitempty" doc:"Address that the login came from"`
	Agent    string `json:"agent,omitempty" doc:"What the browser called itself"`
}

type listSessionsOutput struct {
	Body struct {
		Sessions []loginView `json:"sessions"`
	}
}

func (a *API) listSessions(ctx context.Context, in *userInput) (*listSessionsOutput, error) {
	list, err := a.Access.Sessions(who(ctx).id, in.Name)
	if err != nil {
		return nil, err
	}
	out := &listSessionsOutput{}
	out.Body.Sessions = make([]loginView, len(list))
	for i, s := range list {
		out.Body.Sessions[i] = loginView{s.ID, millis(s.Created), millis(s.LastSeen), millis(s.Expires), s.Source, s.Agent}
	}
	return out, nil
}

type endSessionInput struct {
	Name    string `path:"name" maxLength:"64"`
	Session string `path:"session" maxLength:"64"`
}

func (a *API) endSession(ctx context.Context, in *endSessionInput) (*struct{}, error) {
	return nil, a.Access.EndSession(ctx, who(ctx).id, in.Name, in.Session)
}
