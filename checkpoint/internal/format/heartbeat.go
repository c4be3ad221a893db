package format

import "time"

// A Heartbeat says that a writer was alive when it was written. Each one replaces the one
// before.
type Heartbeat struct {
	Version int       `json:"holdfast"`
	Task    string    `json:"task"`
	Epoch   uint64    `json:"epoch"`
	Writer  WriterID  `json:"writer"`
	N       uint64    `json:"n"`    // counts the heartbeats of this writer, from 1
	Time    time.Time `json:"time"` // by the clock of the writer's machine: for people alone
}

// Encode returns h's bytes: one JSON object with a sum, as a manifest is.
func (h *Heartbeat) Encode() ([]byte, error) {
	h.Version = Version
	if err := h.check(h.Task); err != nil {
		return nil, unreadable("heartbeat", err)
	}
	return encodeRecord(h)
}

// DecodeHeartbeat decodes the bytes of a heartbeat of a task's owner, and checks them. Its
// error wraps ErrCorrupt or ErrVersion.
func DecodeHeartbeat(data []byte, task string) (*Heartbeat, error) {
	return decodeRecord[Heartbeat](data, task)
}

func (h *Heartbeat) check(task string) error {
	if h.Version != Version || h.Task != task || h.Epoch == 0 || h.Epoch > maxNumber || h.N == 0 || h.Time.IsZero() {
		return corruptf("format %d, heartbeat %d of epoch %d of task %q; expected task %q", h.Version, h.N, h.Epoch, h.Task, task)
	}
	return nil
}
