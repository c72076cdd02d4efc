package main

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// userAnswer is what the API says about a person.
type userAnswer struct {
	Name        string      `json:"name"`
	Role        string      `json:"role"`
	HasPassword bool        `json:"has_password"`
	Created     int64       `json:"created"`
	LastSeen    int64       `json:"last_seen"`
	Sessions    int         `json:"sessions"`
	Link        *linkAnswer `json:"link"`
}

// linkAnswer is a one-time link.
type linkAnswer struct {
	User    string `json:"user"`
	URL     string `json:"url"`
	Link    string `json:"link"`
	Expires int64  `json:"expires"`
}

func newUser(w world) *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "People: add, list, link, role, remove"}
	add := &cobra.Command{Use: "add NAME", Short: "Add a person and print a one-time link to set a password", Args: cobra.ExactArgs(1),
		RunE: remote(w, func(j *job) error {
			role, _ := j.cmd.Flags().GetString("role") // the flag exists
			v, raw, err := send[userAnswer](j.ctx(), j.client, http.MethodPost, "/api/v1/users", map[string]string{"name": j.args[0], "role": role})
			if err != nil {
				return err
			}
			return showLink(j, raw, v.Link)
		})}
	add.Flags().String("role", "viewer", "what the person may do: viewer, operator or admin")
	link := &cobra.Command{Use: "link NAME", Short: "Print a one-time link to set a password, or to log in", Args: cobra.ExactArgs(1),
		RunE: remote(w, func(j *job) error {
			purpose := "password"
			if login, _ := j.cmd.Flags().GetBool("login"); login { // the flag exists
				purpose = "login"
			}
			path := "/api/v1/users/" + url.PathEscape(j.args[0]) + "/links"
			v, raw, err := send[linkAnswer](j.ctx(), j.client, http.MethodPost, path, map[string]string{"purpose": purpose})
			if err != nil {
				return err
			}
			return showLink(j, raw, &v)
		})}
	link.Flags().Bool("login", false, "log in without a password instead")
	list := &cobra.Command{Use: "list", Short: "List people", Args: cobra.NoArgs, RunE: remote(w, listUsers)}
	role := &cobra.Command{Use: "role NAME ROLE", Short: "Give a person another role", Args: cobra.ExactArgs(2),
		RunE: remote(w, func(j *job) error {
			_, err := j.call(j.ctx(), http.MethodPatch, "/api/v1/users/"+url.PathEscape(j.args[0]), map[string]string{"role": j.args[1]})
			return err
		})}
	rm := &cobra.Command{Use: "rm NAME", Short: "Remove a person", Args: cobra.ExactArgs(1),
		RunE: remote(w, func(j *job) error {
			_, err := j.call(j.ctx(), http.MethodDelete, "/api/v1/users/"+url.PathEscape(j.args[0]), nil)
			return err
		})}
	c.AddCommand(add, list, link, role, rm)
	return c
}

func showLink(j *job, raw any, l *linkAnswer) error {
	return j.show(j.w, raw, func(t *table) {
		if l == nil {
			return
		}
		t.row("USER", "LINK (works once)", "UNTIL")
		address := l.URL
		if address == "" {
			address = l.Link
		}
		t.row(l.User, address, moment(l.Expires))
	})
}

func listUsers(j *job) error {
	v, raw, err := get[struct {
		Users []userAnswer `json:"users"`
	}](j.ctx(), j.client, "/api/v1/users")
	if err != nil {
		return err
	}
	return j.show(j.w, raw, func(t *table) {
		t.row("NAME", "ROLE", "PASSWORD", "SESSIONS", "LAST SEEN")
		for _, u := range v.Users {
			password := "none yet"
			if u.HasPassword {
				password = "set"
			}
			t.row(u.Name, u.Role, password, u.Sessions, moment(u.LastSeen))
		}
	})
}
