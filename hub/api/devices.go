package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// deviceView is a device as the API shows it. Times are Unix milliseconds; what is not known is absent.
type deviceView struct {
	ID          string            `json:"id" doc:"Immutable and never given again"`
	Name        string            `json:"name,omitempty" doc:"For people"`
	Labels      map[string]string `json:"labels,omitempty"`
	Position    *hub.Place        `json:"position,omitempty" doc:"Degrees, WGS 84"`
	Created     int64             `json:"created" doc:"Unix ms"`
	Presence    string            `json:"presence" enum:"never,live,stale,offline" doc:"Whether what it last sent can still be believed"`
	Connected   bool              `json:"connected" doc:"It has a socket open"`
	LastSeen    int64             `json:"last_seen,omitempty" doc:"Unix ms of the last sign of life"`
	LastChanged int64             `json:"last_changed,omitempty" doc:"Unix ms of the last reading that differed from the one before"`
	IntervalMS  int64             `json:"interval_ms,omitempty" doc:"Expected time between readings"`
	Firmware    string            `json:"firmware,omitempty"`
	Model       string            `json:"model,omitempty"`
	Events      []eventView       `json:"events,omitempty" doc:"The last that the device told about itself, oldest first, and metric_changed where one got another unit or kind"`
	Metrics     []metricView      `json:"metrics"`
}

// eventView is something that a device told about itself.
type eventView struct {
	T     int64  `json:"t" doc:"Unix ms"`
	Level string `json:"level"`
	Code  string `json:"code,omitempty"`
	Text  string `json:"text,omitempty"`
}

// metricView is a metric as the API shows it.
type metricView struct {
	Name       string      `json:"name"`
	Unit       string      `json:"unit" doc:"SenML unit, in which values are stored. Empty for none"`
	Kind       string      `json:"kind" enum:"gauge,counter,state,text"`
	IntervalMS int64       `json:"interval_ms,omitempty" doc:"Expected time between readings"`
	Lo         *float64    `json:"lo,omitempty" doc:"Values below are flagged"`
	Hi         *float64    `json:"hi,omitempty" doc:"Values above are flagged"`
	Latest     *latestView `json:"latest,omitempty"`
}

// latestView is the newest reading of a metric.
type latestView struct {
	T       int64     `json:"t" doc:"Unix ms"`
	Value   valueJSON `json:"value"`
	Quality int       `json:"quality,omitempty" doc:"Bits: 1 suspect, 2 bad, 4 stale, 8 simulated, 16 out of range. Absent means good"`
}

// valueJSON is a value in the exact form that answers about history have too.
type valueJSON struct{ v device.Value }

// MarshalJSON writes a number, true or false, or a text.
func (v valueJSON) MarshalJSON() ([]byte, error) { return appendJSON(nil, v.v), nil }

// Schema tells huma that a value is not of one type.
func (valueJSON) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Description: "Number, true or false, or text, exactly as the device sent it", OneOf: []*huma.Schema{
		{Type: "number"}, {Type: "boolean"}, {Type: "string"},
	}}
}

func viewDevice(d *hub.DeviceInfo) deviceView {
	v := deviceView{
		ID: string(d.ID), Name: d.Name, Labels: d.Labels, Position: d.Position, Created: millis(d.Created),
		Presence: d.Presence.String(), Connected: d.Connected, LastSeen: millis(d.LastSeen), LastChanged: millis(d.LastChanged),
		IntervalMS: d.Interval.Milliseconds(), Firmware: d.Firmware, Model: d.Model,
		Metrics: make([]metricView, len(d.Metrics)),
	}
	for _, e := range d.Events {
		v.Events = append(v.Events, eventView{e.TimeMS, e.Level, e.Code, e.Text})
	}
	for i := range d.Metrics {
		m := &d.Metrics[i]
		v.Metrics[i] = metricView{Name: m.Name, Unit: m.Unit, Kind: m.Kind.String(), IntervalMS: m.IntervalMS,
			Lo: limit(m.Lo), Hi: limit(m.Hi), Latest: viewLatest(m.Latest)}
	}
	return v
}

func viewLatest(r *hub.Reading) *latestView {
	if r == nil {
		return nil
	}
	return &latestView{T: r.TimeMS, Value: valueJSON{r.Value}, Quality: int(r.Quality)}
}

// limit returns nil for no limit, which is NaN in the domain and has no form in JSON.
func limit(f float64) *float64 {
	if f != f {
		return nil
	}
	return &f
}

// millis returns Unix milliseconds, and zero for the zero time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func (a *API) deviceRoutes() {
	tag := []string{"devices"}
	register(a, huma.Operation{OperationID: "list-devices", Method: http.MethodGet, Path: "/api/v1/devices", Tags: tag,
		Summary: "List devices", Errors: []int{401, 403}}, a.listDevices)
	register(a, huma.Operation{OperationID: "add-device", Method: http.MethodPost, Path: "/api/v1/devices", Tags: tag,
		Summary: "Add a device", DefaultStatus: http.StatusCreated, MaxBodyBytes: smallBody,
		Description: "The answer has a token for the device, which is shown this once.",
		Errors:      []int{400, 401, 403, 409, 422, 503}}, a.addDevice)
	register(a, huma.Operation{OperationID: "show-device", Method: http.MethodGet, Path: "/api/v1/devices/{id}", Tags: tag,
		Summary: "Show a device", Errors: []int{401, 403, 404}}, a.showDevice)
	register(a, huma.Operation{OperationID: "change-device", Method: http.MethodPatch, Path: "/api/v1/devices/{id}", Tags: tag,
		Summary: "Change name, labels or position", MaxBodyBytes: smallBody,
		Description: "What is absent stays as it is. A label with an empty value is removed.",
		Errors:      []int{400, 401, 403, 404, 422, 503}}, a.changeDevice)
	register(a, huma.Operation{OperationID: "delete-device", Method: http.MethodDelete, Path: "/api/v1/devices/{id}", Tags: tag,
		Summary: "Delete a device with all its history", DefaultStatus: http.StatusNoContent,
		Description: "Its tokens are revoked. Its ID is never given again.",
		Errors:      []int{401, 403, 404, 503}}, a.deleteDevice)
}

type deviceInput struct {
	ID string `path:"id" doc:"Device ID"`
}

type deviceOutput struct{ Body deviceView }

type listDevicesOutput struct {
	Body struct {
		Now     int64        `json:"now" doc:"The hub's clock, Unix ms"`
		Devices []deviceView `json:"devices" doc:"Sorted by ID"`
	}
}

func (a *API) listDevices(ctx context.Context, _ *struct{}) (*listDevicesOutput, error) {
	out := &listDevicesOutput{}
	out.Body.Now = time.Now().UnixMilli()
	out.Body.Devices = []deviceView{}
	id := who(ctx).id
	all := a.Hub.Devices(ctx)
	for i := range all {
		if id.CanOn(access.ReadDevices, all[i].ID) {
			out.Body.Devices = append(out.Body.Devices, viewDevice(&all[i]))
		}
	}
	return out, nil
}

func (a *API) showDevice(ctx context.Context, in *deviceInput) (*deviceOutput, error) {
	info, err := a.Hub.Device(ctx, device.ID(in.ID))
	if err != nil {
		return nil, err
	}
	return &deviceOutput{viewDevice(&info)}, nil
}

// newDevice describes a device to be made.
type newDevice struct {
	ID       string            `json:"id" maxLength:"64" doc:"1 to 64 of a-z 0-9 . _ -, beginning with a letter or a digit. It can never be changed"`
	Name     string            `json:"name,omitempty" maxLength:"200" doc:"For people"`
	Labels   map[string]string `json:"labels,omitempty"`
	Position *hub.Place        `json:"position,omitempty" doc:"Degrees, WGS 84"`
}

type addDeviceInput struct{ Body newDevice }

// addedDevice is a new device with its token.
type addedDevice struct {
	deviceView
	Token string `json:"token" doc:"The device's token. It is shown this once and cannot be found out later"`
}

type addDeviceOutput struct {
	Location string `header:"Location"`
	Body     addedDevice
}

func (a *API) addDevice(ctx context.Context, in *addDeviceInput) (*addDeviceOutput, error) {
	by := who(ctx).id
	id, err := device.ParseID(in.Body.ID)
	if err != nil {
		return nil, err
	}
	attrs := hub.DeviceAttrs{Name: in.Body.Name, Labels: in.Body.Labels, Position: in.Body.Position}
	info, err := a.Hub.AddDevice(ctx, id, attrs)
	if err != nil {
		return nil, err
	}
	a.record(ctx, access.CreateDevice, string(id), "add device")
	token, err := a.Access.CreateDeviceToken(ctx, by, id, access.TokenSpec{})
	if err != nil {
		f := a.outward(ctx, err)
		f.detail = "The device was added, but it has no token yet: make one with POST /api/v1/tokens. " + f.detail
		return nil, f
	}
	return &addDeviceOutput{
		Location: "/api/v1/devices/" + string(id),
		Body:     addedDevice{viewDevice(&info), token.Secret.Reveal()},
	}, nil
}

type changeDeviceInput struct {
	ID   string `path:"id" doc:"Device ID"`
	Body struct {
		Name     *string           `json:"name,omitempty" maxLength:"200"`
		Labels   map[string]string `json:"labels,omitempty"`
		Position *hub.Place        `json:"position,omitempty"`
	}
}

func (a *API) changeDevice(ctx context.Context, in *changeDeviceInput) (*deviceOutput, error) {
	patch := hub.DevicePatch{Name: in.Body.Name, Labels: in.Body.Labels}
	if in.Body.Position != nil {
		patch.Position = &in.Body.Position
	}
	info, err := a.Hub.UpdateDevice(ctx, device.ID(in.ID), patch)
	if err != nil {
		return nil, err
	}
	a.record(ctx, access.EditDevice, in.ID, "change device")
	return &deviceOutput{viewDevice(&info)}, nil
}

func (a *API) deleteDevice(ctx context.Context, in *deviceInput) (*struct{}, error) {
	id := device.ID(in.ID)
	if _, err := a.Hub.Device(ctx, id); err != nil {
		return nil, err
	}
	// The tokens go first: whoever still held one could otherwise try to connect to a device that is half gone. Deleting a
	// device includes its tokens, so the right to manage tokens is not asked for.
	if _, err := a.Access.RevokeDevice(ctx, access.Local(), id); err != nil {
		return nil, err
	}
	if err := a.Hub.DeleteDevice(ctx, id); err != nil {
		return nil, err
	}
	a.record(ctx, access.DeleteDevice, in.ID, "delete device with its history")
	return nil, nil
}

// record writes a change that was made into the audit log. It cannot be taken back, so a failure only goes to the log.
func (a *API) record(ctx context.Context, what access.Action, target, detail string) {
	if err := a.Access.Record(context.WithoutCancel(ctx), who(ctx).id, what, target, detail); err != nil {
		a.log.Error("a change is missing in the audit log", "who", who(ctx).id.Name(), "what", what, "target", target, "err", err)
	}
}
