package format

import "time"

// A Proof records that a checkpoint was read as a restore reads it. The time of
// its object says when.
type Proof struct {
	Version int    `json:"holdfast"`
	Task    string `json:"task"`
	Seq     uint64 `json:"seq"` // the checkpoint's

	// Time is that of the checkpoint's commit, by the store's clock. It is recorded
	// because the checkpoint may not exist any more when someone reads the proof.
	Time time.Time `json:"time"`
}

// Encode returns p's bytes: one JSON object with a sum, as a manifest is.
func (p *Proof) Encode() ([]byte, error) {
	p.Version = Version
	if err := p.check(p.Task); err != nil {
		return nil, unreadable("proof", err)
	}
	return encodeRecord(p)
}

// DecodeProof decodes the bytes of a proof of a task, and checks them. Its error wraps
// ErrCorrupt or ErrVersion.
func DecodeProof(data []byte, task string) (*Proof, error) {
	return decodeRecord[Proof](data, task)
}

func (p *Proof) check(task string) error {
	if p.Version != Version || p.Task != task || p.Seq == 0 || p.Seq > maxNumber || p.Time.IsZero() {
		return corruptf("format %d, checkpoint %d of task %q; expected task %q", p.Version, p.Seq, p.Task, task)
	}
	return nil
}
