package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// urlVariable is the environment variable that stands in for a URL that is
// not given.
const urlVariable = "HOLDFAST_URL"

// arguments takes the store's URL, and then one argument for each name, from
// the command line. A name in brackets is optional.
func (p *program) arguments(cmd *cobra.Command, args []string, names ...string) (url string, rest []string, err error) {
	required := 0
	for required < len(names) && names[required][0] != '[' {
		required++
	}
	if len(args) > 0 && strings.Contains(args[0], "://") {
		url, args = args[0], args[1:]
	} else {
		url, p.urlFromEnv = p.getenv(urlVariable), true
	}
	switch {
	case url == "" && len(args) == 0:
		err = wrongUsage(cmd, "the store's URL is missing: give one, such as file:///var/lib/orders, or set %s", urlVariable)
	case url == "":
		err = wrongUsage(cmd, "%q is not a store's URL, such as file:///var/lib/orders, and %s is not set", args[0], urlVariable)
	case len(args) < required:
		err = wrongUsage(cmd, "missing %s", strings.Join(names[len(args):required], " and "))
	case len(args) > len(names):
		err = wrongUsage(cmd, "unexpected argument %q", args[len(names)])
	case slices.Contains(args, ""):
		err = wrongUsage(cmd, "%s is empty", strings.Trim(names[slices.Index(args, "")], "[]"))
	}
	return url, args, err
}

// aboutURL adds to an error that is the URL's where the URL is from, if it was
// not given: nobody would look for it in the environment.
func (p *program) aboutURL(err error) error {
	if err == nil || !p.urlFromEnv {
		return err
	}
	return fmt.Errorf("%s in the environment: %w", urlVariable, err)
}

// refOf returns what --at names: the newest checkpoint if it was not given.
func refOf(at string) (checkpoint.Ref, error) {
	if at == "" {
		return checkpoint.Ref{}, nil
	}
	return checkpoint.ParseRef(at)
}

// lookUp returns the checkpoint that at names or, if at is empty, the newest.
func lookUp(ctx context.Context, task *checkpoint.Task, at string) (*checkpoint.Checkpoint, error) {
	which, err := refOf(at)
	if err != nil {
		return nil, err
	}
	c, err := task.Get(ctx, which)
	return c, absent(ctx, task, err)
}

// absent says more about err if it is that a checkpoint does not exist: the
// whole task may not.
func absent(ctx context.Context, task *checkpoint.Task, err error) error {
	if !errors.Is(err, checkpoint.ErrNoCheckpoint) || errors.Is(err, checkpoint.ErrUnknown) {
		return err
	}
	status, serr := task.Status(ctx)
	if serr != nil {
		return serr
	}
	text := ""
	switch {
	case status.Manifest == 0:
		text = fmt.Sprintf("there is no task %q", task.Name())
	case status.Deleted:
		text = fmt.Sprintf("task %q was deleted", task.Name())
	default:
		text = strings.TrimSuffix(err.Error(), ": "+checkpoint.ErrNoCheckpoint.Error())
	}
	return said{text, checkpoint.ErrNoCheckpoint}
}
