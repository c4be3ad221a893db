package value

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/engines/internal/restored"
	"github.com/holdfast-io/holdfast/engines/internal/slot"
)

// File is the name of the encoded value in its directory, and in a checkpoint.
const File = "state.value"

// A Codec says how a value begins, is fixed, encoded and decoded. What Encode writes,
// Decode must read to its end, but for white space: a json.Decoder leaves the end of the line.
type Codec[T any] struct {
	New    func() T // of a task without a checkpoint
	Encode func(w io.Writer, v T) error
	Decode func(r io.Reader) (T, error)

	// Freeze returns what the value is now, and does not change any more when the value
	// does. Nil means that a Cut encodes the value before it returns.
	Freeze func(v T) T
}

// An Engine has a value in memory of which cuts can be taken. It is what package runner
// calls an Engine.
type Engine[T any] struct {
	// Value is the state. The job may change it, and may set another one, but not while
	// Cut runs.
	Value T

	dir   string
	codec Codec[T]
	slot  slot.Slot
}

// Errors of [Engine.Cut]. ErrClosed is also that of a commit whose cut was open when the
// engine was closed.
var (
	ErrClosed = slot.ErrClosed
	ErrBusy   = slot.ErrBusy
)

// Open decodes the value in dir, which comes from the owner's Resume. If the job has no
// checkpoint, dir is empty or absent, and the value is a new one.
func Open[T any](dir string, codec Codec[T]) (*Engine[T], error) {
	if codec.New == nil || codec.Encode == nil || codec.Decode == nil {
		return nil, errors.New("a value.Codec without New, Encode or Decode: set all three")
	}
	holds, err := restored.Holds(dir, File)
	if err != nil {
		return nil, err
	}
	e := &Engine[T]{dir: dir, codec: codec}
	if !holds {
		e.Value = codec.New()
		return e, nil
	}
	f, err := os.Open(filepath.Join(dir, File))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if e.Value, err = decode(f, codec); err != nil {
		return nil, fmt.Errorf("decoding the value in %s: %w", f.Name(), err)
	}
	return e, nil
}

// decode decodes a value, after which nothing comes but white space.
func decode[T any](f io.Reader, codec Codec[T]) (v T, err error) {
	r := bufio.NewReader(f)
	if v, err = codec.Decode(r); err != nil {
		return v, err
	}
	for {
		switch b, err := r.ReadByte(); {
		case errors.Is(err, io.EOF):
			return v, nil
		case err != nil:
			return v, err
		case !strings.ContainsRune(" \t\r\n", rune(b)):
			return v, errors.New("it goes on after its end; decode it by the codec that it was encoded with")
		}
	}
}

// Cut fixes the value as it is now: see the package's documentation.
//
// The source is read by one commit. remove must be called once that has returned, whatever
// it returned; until then, Cut fails with [ErrBusy]. When ctx ends before that, the commit
// fails with its cause.
func (e *Engine[T]) Cut(ctx context.Context) (src checkpoint.Source, remove func() error, err error) {
	src, remove, err = e.slot.Cut(ctx, File, e.fix)
	if err != nil {
		return src, nil, fmt.Errorf("cutting the value of %s: %w", e.dir, err)
	}
	return src, remove, nil
}

func (e *Engine[T]) fix() (slot.Fixed, error) {
	if e.codec.Freeze == nil {
		var encoded bytes.Buffer
		err := e.codec.Encode(&encoded, e.Value)
		return slot.Fixed{Write: func(w io.Writer) error { _, err := encoded.WriteTo(w); return err }}, err
	}
	frozen := e.codec.Freeze(e.Value)
	return slot.Fixed{Write: func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 64<<10)
		if err := e.codec.Encode(buffered, frozen); err != nil {
			return err
		}
		return buffered.Flush()
	}}, nil
}

// Close ends the use of the engine. A cut that is in use is given up, and its commit fails.
func (e *Engine[T]) Close() error { return e.slot.Close() }
