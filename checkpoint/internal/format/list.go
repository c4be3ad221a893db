package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Segments is a list of segments. In JSON it is an array; see [decodeList].
type Segments []Segment

// UnmarshalJSON reads such an array.
func (l *Segments) UnmarshalJSON(data []byte) (err error) {
	*l, err = decodeList(data, (*Segment).check)
	return err
}

func (s *Segment) check() error {
	if s.ID == (SegmentID{}) || s.ID.Epoch > maxNumber || s.Size <= 0 || s.Size > MaxSegment {
		return fmt.Errorf("segment %q of %d bytes", s.ID, s.Size)
	}
	if s.Task != "" && !isTask(s.Task) {
		return fmt.Errorf("segment %q of task %.40q", s.ID, s.Task)
	}
	return nil
}

// Chunks is a list of chunks. In JSON it is an array; see [decodeList].
type Chunks []Chunk

// UnmarshalJSON reads such an array.
func (l *Chunks) UnmarshalJSON(data []byte) (err error) {
	*l, err = decodeList(data, func(c *Chunk) error {
		if c.Hash == (Hash{}) {
			return errors.New("chunk without a hash")
		}
		return c.check()
	})
	return err
}

// decodeList reads a JSON array whose elements must pass a check. An element takes
// more memory than some do in JSON: in "[{},{}" thirty times as much. So each is
// checked before the next is read.
func decodeList[T any](data []byte, check func(*T) error) ([]T, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	start, err := d.Token()
	if err != nil || start == nil { // null is no list
		return nil, err
	}
	if start != json.Delim('[') {
		return nil, fmt.Errorf("%v where a list was expected", start)
	}
	list := []T{}
	for d.More() {
		var v T
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		if err := check(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something after the end of a list")
	}
	return list, nil
}
