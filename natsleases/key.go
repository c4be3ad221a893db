package natsleases

import (
	"encoding/json"
	"fmt"
	"strings"
)

// The keys of a bucket: "task." and a task's name for its lease, which names a process, and
// "member." and an id for the sign of a process that it is there. A lease counts for as long as
// the sign of its process is fresh.
const (
	taskPrefix   = "task."
	memberPrefix = "member."
)

// taskKey returns the key of a task's lease. Each byte but letters, digits, "-", "_" and "/" is
// "=" and two hex digits.
func taskKey(task string) string {
	var b strings.Builder
	b.WriteString(taskPrefix)
	for i := range len(task) {
		switch c := task[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '/':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// A holder is what a key says: which process it belongs to.
type holder struct {
	ID   string `json:"id,omitempty"`   // random, one for each call of Assign; "" for a lease that was given back
	Name string `json:"name,omitempty"` // for people

	// Leaving is set in the sign of a process that takes nothing any more.
	Leaving bool `json:"leaving,omitempty"`
}

func (h holder) encode() []byte {
	data, err := json.Marshal(h)
	if err != nil {
		panic(err) // two strings can be encoded
	}
	return data
}

// decode reads what encode returned. What it cannot read is nobody's: whoever has written it
// has no lease.
func decode(data []byte) (h holder) {
	_ = json.Unmarshal(data, &h)
	return h
}
