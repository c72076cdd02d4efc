package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// smallBody bounds bodies that hold a few fields.
const smallBody = 32 << 10

// tokenView is what may be known about a token. Times are Unix milliseconds; what does not apply is absent.
type tokenView struct {
	ID       string   `json:"id" doc:"Public name of the token, by which it is revoked"`
	Kind     string   `json:"kind" enum:"device,api,enrolment"`
	Label    string   `json:"label,omitempty"`
	Device   string   `json:"device,omitempty" doc:"The device of a device token"`
	Role     string   `json:"role,omitempty" enum:"viewer,operator,admin"`
	Devices  []string `json:"devices,omitempty" doc:"The only devices that the token is for"`
	Uses     int      `json:"uses,omitempty" doc:"How many devices may still be enrolled"`
	Created  int64    `json:"created" doc:"Unix ms"`
	Expires  int64    `json:"expires,omitempty" doc:"Unix ms. Absent means never"`
	LastUsed int64    `json:"last_used,omitempty" doc:"Unix ms, about. Absent means never"`
	By       string   `json:"by,omitempty" doc:"Who made it"`
}

// createdToken is a new token with its secret.
type createdToken struct {
	tokenView
	Token string `json:"token" doc:"The secret. It is shown this once and cannot be found out later"`
}

func viewToken(t *access.TokenInfo) tokenView {
	v := tokenView{ID: t.ID, Kind: string(t.Kind), Label: t.Label, Device: string(t.Device), Devices: t.Devices, Uses: t.Uses,
		Created: millis(t.Created), Expires: millis(t.Expires), LastUsed: millis(t.LastUsed), By: t.By}
	if t.Role != access.NoRole {
		v.Role = t.Role.String()
	}
	return v
}

func (a *API) tokenRoutes() {
	tag := []string{"tokens"}
	register(a, huma.Operation{OperationID: "list-tokens", Method: http.MethodGet, Path: "/api/v1/tokens", Tags: tag,
		Summary: "List tokens", Errors: []int{401, 403}}, a.listTokens)
	register(a, huma.Operation{OperationID: "create-token", Method: http.MethodPost, Path: "/api/v1/tokens", Tags: tag,
		Summary: "Create a token", DefaultStatus: http.StatusCreated, MaxBodyBytes: smallBody,
		Description: "An api token is for a program and has a role; a device token is for one device; an enrolment token lets " +
			"devices fetch tokens of their own.",
		Errors: []int{400, 401, 403, 404, 422, 503}}, a.createToken)
	register(a, huma.Operation{OperationID: "revoke-token", Method: http.MethodDelete, Path: "/api/v1/tokens/{id}", Tags: tag,
		Summary: "Revoke a token", DefaultStatus: http.StatusNoContent,
		Description: "Connections that it opened are closed at once.",
		Errors:      []int{401, 403, 404, 503}}, a.revokeToken)
	register(a, huma.Operation{OperationID: "enrol", Method: http.MethodPost, Path: "/api/v1/enrol", Tags: tag,
		Summary: "Exchange an enrolment token for a device token", DefaultStatus: http.StatusCreated, MaxBodyBytes: smallBody,
		Description: "The enrolment token is sent as the bearer token. The device is added if it does not exist. A device that did " +
			"not get the answer may ask again.",
		Errors: []int{400, 401, 403, 409, 422, 503}}, a.enrol)
}

type listTokensInput struct {
	Kind string `query:"kind" enum:"device,api,enrolment" doc:"Only tokens of this kind"`
}

type listTokensOutput struct {
	Body struct {
		Tokens []tokenView `json:"tokens"`
	}
}

func (a *API) listTokens(ctx context.Context, in *listTokensInput) (*listTokensOutput, error) {
	var kinds []access.Kind
	if in.Kind != "" {
		kinds = []access.Kind{access.Kind(in.Kind)}
	}
	list, err := a.Access.Tokens(who(ctx).id, kinds...)
	if err != nil {
		return nil, err
	}
	out := &listTokensOutput{}
	out.Body.Tokens = make([]tokenView, len(list))
	for i := range list {
		out.Body.Tokens[i] = viewToken(&list[i])
	}
	return out, nil
}

type createTokenInput struct {
	Body struct {
		Kind    string   `json:"kind,omitempty" enum:"device,api,enrolment" default:"api"`
		Label   string   `json:"label,omitempty" maxLength:"128" doc:"For people"`
		Role    string   `json:"role,omitempty" enum:"viewer,operator,admin" doc:"What an api token may do"`
		Device  string   `json:"device,omitempty" maxLength:"64" doc:"Whose token a device token is"`
		Devices []string `json:"devices,omitempty" maxItems:"64" doc:"The only devices that an api or enrolment token is for: IDs, or beginnings with * at the end. Absent means all"`
		Uses    int      `json:"uses,omitempty" minimum:"0" maximum:"1000000" doc:"How many devices an enrolment token may enrol. Absent means 1"`
		Expires int64    `json:"expires,omitempty" minimum:"0" doc:"Unix ms. Absent means never, or in 24 hours for enrolment tokens"`
	}
}

type createdTokenOutput struct{ Body createdToken }

func (a *API) createToken(ctx context.Context, in *createTokenInput) (*createdTokenOutput, error) {
	b, by := &in.Body, who(ctx).id
	spec := access.TokenSpec{Label: b.Label, Devices: b.Devices, Uses: b.Uses}
	if b.Expires > 0 {
		spec.Expires = time.UnixMilli(b.Expires)
	}
	if err := in.checkKind(); err != nil {
		return nil, err
	}
	var (
		made access.NewToken
		err  error
	)
	switch access.Kind(b.Kind) {
	case access.KindDevice:
		id := device.ID(b.Device)
		if _, err = a.Hub.Device(ctx, id); err != nil {
			return nil, err
		}
		made, err = a.Access.CreateDeviceToken(ctx, by, id, spec)
	case access.KindEnrolment:
		made, err = a.Access.CreateEnrolment(ctx, by, spec)
	default:
		if spec.Role, err = access.ParseRole(b.Role); err != nil {
			return nil, err
		}
		made, err = a.Access.CreateToken(ctx, by, spec)
	}
	if err != nil {
		return nil, err
	}
	return &createdTokenOutput{createdToken{viewToken(&made.TokenInfo), made.Secret.Reveal()}}, nil
}

// checkKind refuses what does not go with the kind of the token: whoever sent it means another token than would be made.
func (in *createTokenInput) checkKind() error {
	b := &in.Body
	for _, c := range []struct {
		wrong  bool
		detail string
	}{
		{b.Kind != "device" && b.Device != "", `device is for kind "device". An api or enrolment token is limited by devices, a list.`},
		{b.Kind == "device" && len(b.Devices) > 0, `devices is not for kind "device". Name the one device as device.`},
		{b.Kind != "api" && b.Role != "", `role is for kind "api" only.`},
		{b.Kind != "enrolment" && b.Uses != 0, `uses is for kind "enrolment" only.`},
	} {
		if c.wrong {
			return faultf(http.StatusUnprocessableEntity, "The token was not made: %s", c.detail)
		}
	}
	return nil
}

type tokenInput struct {
	ID string `path:"id" maxLength:"64" doc:"Public name of the token"`
}

func (a *API) revokeToken(ctx context.Context, in *tokenInput) (*struct{}, error) {
	return nil, a.Access.RevokeToken(ctx, who(ctx).id, in.ID)
}

type enrolInput struct {
	Authorization string `header:"Authorization" doc:"Bearer and the enrolment token"`
	Body          struct {
		Device string `json:"device" maxLength:"64" doc:"ID of the device"`
	}
}

func (a *API) enrol(ctx context.Context, in *enrolInput) (*createdTokenOutput, error) {
	id, err := device.ParseID(in.Body.Device)
	if err != nil {
		return nil, err
	}
	made, err := a.Access.Enrol(ctx, access.NewSecret(bearer(in.Authorization)), id)
	if err != nil {
		return nil, err
	}
	// The token comes first: a device without a token does no harm to nobody, but one that an enrolment token which is used up
	// had added would keep its ID taken for ever.
	switch _, err = a.Hub.AddDevice(ctx, id, hub.DeviceAttrs{}); {
	case err == nil:
		a.record(ctx, access.CreateDevice, string(id), "add device by enrolment")
	case errors.Is(err, hub.ErrExists):
	default:
		if _, revokeErr := a.Access.RevokeDevice(context.WithoutCancel(ctx), access.Local(), id); revokeErr != nil {
			a.log.Error("a token of a device that does not exist could not be revoked", "device", id, "err", revokeErr)
		}
		return nil, err
	}
	return &createdTokenOutput{createdToken{viewToken(&made.TokenInfo), made.Secret.Reveal()}}, nil
}
