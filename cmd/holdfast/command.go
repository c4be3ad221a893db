package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// A program is one run of the command line, and what it has of the world.
type program struct {
	stdout      io.Writer
	stderr      *screen
	getenv      func(string) string
	asJSON      bool
	stats       bool
	memory      int64 // for data under way; 0 is the default
	compression checkpoint.Compression
	urlFromEnv  bool
}

// run runs one command line and returns the exit code. Results go to stdout,
// and nothing else does.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, getenv func(string) string) int {
	p := &program{stdout: stdout, stderr: newScreen(stderr), getenv: getenv}
	err := p.execute(ctx, args)
	if err == nil {
		return exitDone
	}
	if e := (ended{}); errors.As(err, &e) && e.err == nil {
		return e.code
	}
	text, code := explain(ctx, err)
	_, _ = fmt.Fprintf(stderr, "holdfast: %s\n", text)
	return code
}

func (p *program) execute(ctx context.Context, args []string) error {
	root := p.root() //nolint:contextcheck // ExecuteContext gives it to the commands
	if len(args) == 0 {
		return wrongUsage(root, "no command given")
	}
	root.SetArgs(args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	if _, _, unknown := root.Find(args); unknown != nil {
		return unknownCommand(root, unknown)
	}
	return err
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Keep the checkpoints of stateful jobs in object storage",
		Long: `Holdfast keeps the checkpoints of stateful jobs in object storage.

Every command takes the job's store as a URL, such as file:///var/lib/orders. It
may be left out when HOLDFAST_URL is set: the first argument is the URL if it
contains "://"; otherwise HOLDFAST_URL is.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 no such task or checkpoint;
4 fenced, or another save was first; 5 corrupt.`,
		Example:       `  holdfast ls 's3://bucket/jobs/orders?region=eu-west-1'`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.Flags().Bool("version", false, "print the version")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return wrongUsage(cmd, "%v", err)
	})
	root.SetHelpCommand(helpCommand())
	root.AddCommand(p.runCommand(), p.saveCommand(), p.restoreCommand(), p.rollbackCommand(), p.lsCommand(), p.showCommand(), p.savepointCommand(), p.startpointCommand(), p.noteCommand(), p.forkCommand(), p.rmCommand(), p.pruneCommand(), p.gcCommand(), p.verifyCommand(), p.versionCommand())
	completeUsage(root)
	return root
}

// completeUsage makes a wrong use of cobra's completion command an error:
// otherwise a shell would be given its help to run.
func completeUsage(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		cmd.Args = nil
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			return wrongUsage(cmd, "name a shell: bash, fish, powershell or zsh")
		}
	}
}

// helpCommand is cobra's, except that an unknown command is an error.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, _, err := cmd.Root().Find(args)
			if err != nil {
				return unknownCommand(cmd.Root(), err)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// unknownCommand returns cobra's error on one line.
func unknownCommand(root *cobra.Command, err error) error {
	what, similar, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	if names := strings.Fields(similar); len(names) > 0 {
		what += "; did you mean " + strings.Join(names, " or ") + "?"
	}
	return wrongUsage(root, "%s", what)
}

// wrongUsage returns an error for a command line that cannot be carried out.
func wrongUsage(cmd *cobra.Command, format string, args ...any) error {
	return backend.Invalidf("%s; see '%s --help'", fmt.Sprintf(format, args...), cmd.CommandPath())
}

// output adds the flags that every command with a result has.
func (p *program) output(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.asJSON, "json", false, "print one JSON document")
	cmd.Flags().BoolVar(&p.stats, "stats", false, "say on stderr what was asked of the store")
}

// withJob runs do with the job at url. What do has done is durable by itself:
// nothing hangs on how closing goes.
func (p *program) withJob(ctx context.Context, url string, keep checkpoint.Retention, do func(*checkpoint.Job) error) error {
	job, err := checkpoint.Open(ctx, url, checkpoint.Options{Retention: keep, Memory: p.memory, Compression: p.compression, Logger: p.logger()})
	if err != nil {
		return p.aboutURL(err)
	}
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	if p.stats {
		defer func() { p.note("%s", requests(job.Stats())) }()
	}
	err = do(job)
	if errors.Is(err, backend.ErrNoStore) {
		err = p.aboutURL(err)
	}
	return err
}

// withTask runs do with one task of the job at url.
func (p *program) withTask(ctx context.Context, url, name string, keep checkpoint.Retention, do func(*checkpoint.Task) error) error {
	return p.withJob(ctx, url, keep, func(job *checkpoint.Job) error {
		task, err := job.Task(name)
		if err != nil {
			return err
		}
		return do(task)
	})
}

// note tells the user something that is no result and no failure.
func (p *program) note(format string, args ...any) {
	_, _ = fmt.Fprintf(p.stderr, "holdfast: note: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// logger makes notes of what the library logs.
func (p *program) logger() *slog.Logger { return slog.New(noteHandler{p: p}) }

// A noteHandler makes a note of a record: its message, what that is about, and
// the error behind it.
type noteHandler struct {
	p     *program
	least slog.Level // of what is told
	attrs []slog.Attr
}

func (h noteHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.least
}

func (h noteHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return noteHandler{h.p, h.least, slices.Concat(h.attrs, attrs)}
}

func (h noteHandler) WithGroup(string) slog.Handler { return h }

func (h noteHandler) Handle(_ context.Context, r slog.Record) error {
	about, cause := []string{}, ""
	add := func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			cause += ": " + err.Error()
		} else {
			about = append(about, a.Key+" "+printable(a.Value.String()))
		}
		return true
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	text := r.Message
	if len(about) > 0 {
		text += " (" + strings.Join(about, ", ") + ")"
	}
	h.p.note("%s%s", text, cause)
	return nil
}
