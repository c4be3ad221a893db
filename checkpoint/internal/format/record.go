package format

import "encoding/json"

// MaxRecord bounds a record, in bytes: an object beside the manifests, on which no manifest
// depends.
const MaxRecord = MaxManifest

// encodeRecord returns the bytes of a record: one JSON object with a sum, as a manifest is.
func encodeRecord(v any) ([]byte, error) {
	data, err := marshal(v)
	if err != nil {
		return nil, err
	}
	return appendSum(data), nil
}

// decodeRecord decodes a record of a task, and checks it. Its error wraps ErrCorrupt or
// ErrVersion.
func decodeRecord[T any, R interface {
	*T
	check(task string) error
}](data []byte, task string) (R, error) {
	if len(data) > MaxRecord {
		return nil, corruptf("more than %d bytes", MaxRecord)
	}
	if err := checkSum(data); err != nil {
		return nil, err
	}
	if err := checkVersion(data); err != nil {
		return nil, err
	}
	r := R(new(T))
	if err := json.Unmarshal(data, r); err != nil {
		return nil, corruptf("%v", err)
	}
	if err := r.check(task); err != nil {
		return nil, err
	}
	return r, nil
}
