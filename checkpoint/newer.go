package checkpoint

import (
	"bytes"
	"context"
	"slices"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

// Newer returns the task's status if there is a manifest after number than, which is what
// Status.Manifest was when the caller looked last. Otherwise ok is false. It is for whoever
// follows a task: it sends one request, a read and not a listing, as long as there is
// nothing new; then those of [Task.Status] as well.
//
// Newer asks for the manifest with the next number. That is not deleted within [FenceWindow]
// after it was made, so a caller that asks more often than that misses nothing. But if
// someone has brought the store back to an earlier state, there may never be such a manifest.
// So a caller uses Status once in a while, and when it has not asked for long. If than is 0,
// Newer is Status.
func (t *Task) Newer(ctx context.Context, than uint64) (s Status, ok bool, err error) {
	if than > 0 {
		if has, err := t.log.Has(ctx, than+1); err != nil || !has {
			return Status{}, false, err
		}
	}
	s, err = t.Status(ctx)
	return s, err == nil && s.Manifest > than, err
}

// SameState reports whether the states of c and other, which are of one job, are certain to
// be the same, byte for byte. It goes by the hashes of their lists of files, and sends no
// request. If it returns false they may still be the same, but stored in another way.
func (c *Checkpoint) SameState(other *Checkpoint) bool {
	a, b := c.content, other.content
	return bytes.Equal(a.Tree, b.Tree) && a.TreeSize == b.TreeSize && slices.EqualFunc(a.TreeAt, b.TreeAt, func(a, b format.Chunk) bool {
		return a.Size == b.Size && a.Hash == b.Hash
	})
}
