package main

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// tokenAnswer is what the API says about a token.
type tokenAnswer struct {
	ID       string   `json:"id"`
	Kind     string   `json:"kind"`
	Label    string   `json:"label"`
	Device   string   `json:"device"`
	Role     string   `json:"role"`
	Devices  []string `json:"devices"`
	Uses     int      `json:"uses"`
	Created  int64    `json:"created"`
	Expires  int64    `json:"expires"`
	LastUsed int64    `json:"last_used"`
	Token    string   `json:"token"`
}

// tokenSpec is a token to be made.
type tokenSpec struct {
	Kind    string   `json:"kind"`
	Label   string   `json:"label,omitempty"`
	Role    string   `json:"role,omitempty"`
	Device  string   `json:"device,omitempty"`
	Devices []string `json:"devices,omitempty"`
	Uses    int      `json:"uses,omitempty"`
	Expires int64    `json:"expires,omitempty"`
}

func newToken(w world) *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "Tokens of programs and devices: create, list, revoke"}
	create := &cobra.Command{
		Use:     "create",
		Short:   "Create a token and print it; it is shown this once",
		Example: "  hub token create --role viewer --label grafana\n  hub token create --device greenhouse-1",
		Args:    cobra.NoArgs,
		RunE: remote(w, func(j *job) error {
			spec, err := tokenFlags(j.cmd, "api")
			if err != nil {
				return err
			}
			spec.Role, _ = j.cmd.Flags().GetString("role") // the flag exists, and so below
			spec.Device, _ = j.cmd.Flags().GetString("device")
			switch {
			case spec.Device != "" && (spec.Role != "" || len(spec.Devices) > 0):
				return usagef("--device makes a token for a device, which has no role")
			case spec.Device != "":
				spec.Kind = "device"
			case spec.Role == "":
				return usagef("--role viewer, operator or admin says what the token may do; --device ID makes one for a device")
			}
			return createToken(j, spec)
		}),
	}
	create.Flags().String("role", "", "what a program with the token may do: viewer, operator or admin")
	create.Flags().String("device", "", "make another token for this device instead")
	addTokenFlags(create)
	list := &cobra.Command{Use: "list", Short: "List tokens", Args: cobra.NoArgs, RunE: remote(w, listTokens)}
	revoke := &cobra.Command{Use: "revoke ID", Short: "Revoke a token; what it has open is closed at once", Args: cobra.ExactArgs(1),
		RunE: remote(w, func(j *job) error {
			_, err := j.call(j.ctx(), http.MethodDelete, "/api/v1/tokens/"+url.PathEscape(j.args[0]), nil)
			return err
		})}
	c.AddCommand(create, list, revoke)
	return c
}

func newEnrol(w world) *cobra.Command {
	c := &cobra.Command{Use: "enrol", Short: "Enrolment tokens, with which devices fetch tokens of their own"}
	create := &cobra.Command{
		Use:     "create",
		Short:   "Create an enrolment token and print it; it is shown this once",
		Example: "  hub enrol create --uses 20 --devices 'greenhouse-*'",
		Args:    cobra.NoArgs,
		RunE: remote(w, func(j *job) error {
			spec, err := tokenFlags(j.cmd, "enrolment")
			if err != nil {
				return err
			}
			spec.Uses, _ = j.cmd.Flags().GetInt("uses") // the flag exists
			if spec.Uses < 1 || spec.Uses > 1_000_000 { // 0 would leave it to the hub
				return usagef("--uses %d: use 1 to 1000000", spec.Uses)
			}
			return createToken(j, spec)
		}),
	}
	create.Flags().Int("uses", 1, "how many devices it may enrol")
	addTokenFlags(create)
	c.AddCommand(create)
	return c
}

func addTokenFlags(c *cobra.Command) {
	c.Flags().String("label", "", "what it is for, for people")
	c.Flags().StringArray("devices", nil, "only for this device, or for those that begin so (greenhouse-*); may be repeated")
	c.Flags().Duration("expires", 0, "how long it works, as 720h; 0 means for ever, or 24h for enrolment tokens")
}

func tokenFlags(c *cobra.Command, kind string) (tokenSpec, error) {
	spec := tokenSpec{Kind: kind}
	spec.Label, _ = c.Flags().GetString("label") // the flag exists, and so below
	spec.Devices, _ = c.Flags().GetStringArray("devices")
	expires, _ := c.Flags().GetDuration("expires")
	if expires < 0 {
		return spec, usagef("--expires %s has passed", expires)
	}
	if expires > 0 {
		spec.Expires = time.Now().Add(expires).UnixMilli()
	}
	return spec, nil
}

func createToken(j *job, spec tokenSpec) error {
	v, raw, err := send[tokenAnswer](j.ctx(), j.client, http.MethodPost, "/api/v1/tokens", spec)
	if err != nil {
		return err
	}
	return j.show(j.w, raw, func(t *table) {
		t.row("ID", "TOKEN")
		t.row(v.ID, v.Token)
	})
}

func listTokens(j *job) error {
	v, raw, err := get[struct {
		Tokens []tokenAnswer `json:"tokens"`
	}](j.ctx(), j.client, "/api/v1/tokens")
	if err != nil {
		return err
	}
	return j.show(j.w, raw, func(t *table) {
		t.row("ID", "KIND", "ROLE", "FOR", "LABEL", "CREATED", "LAST USED", "EXPIRES")
		for _, k := range v.Tokens {
			who := k.Device
			if who == "" {
				who = strings.Join(k.Devices, " ")
			}
			t.row(k.ID, k.Kind, k.Role, who, k.Label, moment(k.Created), moment(k.LastUsed), moment(k.Expires))
		}
	})
}
