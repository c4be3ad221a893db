package format

import (
	"encoding/json"
	"time"
)

// A Proof records that a checkpoint was read as a restore reads it. The time of
// its object says when.
type Proof struct {
	Version int    `json:"holdfast"`
	Task    string `json:"task"`
	Seq     uint64 `json:"seq"` // the checkpoint's

	// Time is that of the checkpoint's commit, by the store's clock: the
	// checkpoint itself may be gone by the time that someone asks.
	Time time.Time `json:"time"`
}

// MaxProof bounds a proof, in bytes.
const MaxProof = MaxManifest

// Encode returns p's bytes: one JSON object with a sum, as a manifest is.
func (p *Proof) Encode() ([]byte, error) {
	p.Version = Version
	if err := p.check(p.Task); err != nil {
		return nil, unreadable("proof", err)
	}
	data, err := marshal(p)
	if err != nil {
		return nil, err
	}
	return appendSum(data), nil
}

// DecodeProof reads the bytes of a proof of a task. It returns an error that
// wraps ErrCorrupt or ErrVersion if it cannot vouch for them.
func DecodeProof(data []byte, task string) (*Proof, error) {
	if len(data) > MaxProof {
		return nil, corruptf("more than %d bytes", MaxProof)
	}
	if err := checkSum(data); err != nil {
		return nil, err
	}
	if err := checkVersion(data); err != nil {
		return nil, err
	}
	p := new(Proof)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, corruptf("%v", err)
	}
	if err := p.check(task); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Proof) check(task string) error {
	if p.Version != Version || p.Task != task || p.Seq == 0 || p.Seq > maxNumber || p.Time.IsZero() {
		return corruptf("format %d, checkpoint %d of task %q; expected task %q", p.Version, p.Seq, p.Task, task)
	}
	return nil
}
