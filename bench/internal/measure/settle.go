package measure

import (
	"context"
	"fmt"
	"os/exec"
	"runtime/debug"
)

// touchMost bounds the memory that [Settle] touches.
const touchMost = 4 << 30

// Settle takes from the next command what earlier ones have left to it, good
// and bad. The disk's write cache is emptied: what others have written is not
// this one's to wait for. And as many bytes of memory as the command will fill,
// which includes the page cache, are touched: in a virtual machine that gives
// free memory back to its host, as a cloud's small ones do, the first to touch a
// page waits for the host. A copy of 0.5 GiB was seen to take 0.3 s of processor
// time, or 1.7 s, by that alone.
func Settle(ctx context.Context, bytes int64) error {
	if err := exec.CommandContext(ctx, "sync").Run(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	_ = touch(min(bytes, touchMost))
	debug.FreeOSMemory()
	return ctx.Err()
}

const pageSize = 4 << 10

// touch returns memory that is in use, not only reserved.
func touch(bytes int64) []byte {
	memory := make([]byte, bytes)
	for i := int64(0); i < bytes; i += pageSize {
		memory[i] = 1
	}
	return memory
}
