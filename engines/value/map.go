package value

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"iter"
	"maps"
	"reflect"
	"slices"
	"unicode/utf8"
)

// shards is how many parts a map has. A clone copies a pointer to each (32 KiB, some
// microseconds), and the first write to one after that copies its entries: of a million
// keys some 250.
const shards = 1 << 12

// A Map is a map of which a clone takes microseconds, whatever its size: the two share what
// neither has changed since. It is for one goroutine; a clone may be used by another.
// [NewMap] makes one.
type Map[K comparable, V any] struct {
	seed  maphash.Seed
	mine  *owner // of the shards that this map alone has
	parts [shards]*shard[K, V]
	n     int
}

type owner struct{ _ byte } // has a size, so that each has an address of its own

type shard[K comparable, V any] struct {
	of      *owner
	entries map[K]V
}

// NewMap returns an empty map.
func NewMap[K comparable, V any]() *Map[K, V] {
	return &Map[K, V]{seed: maphash.MakeSeed(), mine: new(owner)}
}

// Clone returns a map with the same entries. Either may be changed without the other.
func (m *Map[K, V]) Clone() *Map[K, V] {
	clone := *m
	m.mine, clone.mine = new(owner), new(owner)
	return &clone
}

// Len returns the number of entries.
func (m *Map[K, V]) Len() int { return m.n }

// Get returns the value of a key, and whether there is one.
func (m *Map[K, V]) Get(key K) (value V, ok bool) {
	if s := m.parts[m.index(key)]; s != nil {
		value, ok = s.entries[key]
	}
	return value, ok
}

// Set sets the value of a key.
func (m *Map[K, V]) Set(key K, value V) {
	entries := m.own(key)
	before := len(entries)
	entries[key] = value
	m.n += len(entries) - before
}

// Delete removes a key, if it is there.
func (m *Map[K, V]) Delete(key K) {
	if _, ok := m.Get(key); !ok {
		return
	}
	delete(m.own(key), key)
	m.n--
}

// All yields the entries, in no order. The map must not be changed meanwhile.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, s := range m.parts {
			if s == nil {
				continue
			}
			for key, value := range s.entries {
				if !yield(key, value) {
					return
				}
			}
		}
	}
}

func (m *Map[K, V]) index(key K) uint64 { return maphash.Comparable(m.seed, key) % shards }

// own returns the entries of a key's shard, which no other map has.
func (m *Map[K, V]) own(key K) map[K]V {
	at := &m.parts[m.index(key)]
	switch s := *at; {
	case s == nil:
		*at = &shard[K, V]{m.mine, make(map[K]V)}
	case s.of != m.mine:
		*at = &shard[K, V]{m.mine, maps.Clone(s.entries)}
	}
	return (*at).entries
}

// An entry is a line of an encoded map.
type entry[K, V any] struct {
	Key   K `json:"k"`
	Value V `json:"v"`
}

// MapCodec is the codec of a [Map] whose keys and values JSON can hold: one line for each
// entry, in the order of the keys, so that what did not change is encoded as it was. A key that
// is text must be UTF-8: one that is not fails the encoding, and so the commit.
func MapCodec[K cmp.Ordered, V any]() Codec[*Map[K, V]] {
	return Codec[*Map[K, V]]{New: NewMap[K, V], Encode: encodeMap[K, V], Decode: decodeMap[K, V], Freeze: (*Map[K, V]).Clone}
}

func encodeMap[K cmp.Ordered, V any](w io.Writer, m *Map[K, V]) error {
	keys := make([]K, 0, m.Len())
	for key := range m.All() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	lines := json.NewEncoder(w)
	for _, key := range keys {
		if text := reflect.ValueOf(key); text.Kind() == reflect.String && !utf8.ValidString(text.String()) {
			return fmt.Errorf("the key %q is not UTF-8, and JSON holds no other text: encode it as base64, or use another codec", text)
		}
		value, _ := m.Get(key)
		if err := lines.Encode(entry[K, V]{key, value}); err != nil {
			return err
		}
	}
	return nil
}

// decodeMap refuses what encodeMap does not write: another codec's JSON must not be taken for an
// entry with zeros. What is in a value is for V to say.
func decodeMap[K cmp.Ordered, V any](r io.Reader) (*Map[K, V], error) {
	m := NewMap[K, V]()
	lines := json.NewDecoder(r)
	lines.DisallowUnknownFields()
	for {
		var e entry[*K, json.RawMessage]
		err := lines.Decode(&e)
		switch {
		case errors.Is(err, io.EOF):
			return m, nil
		case err != nil:
			return nil, err
		case e.Key == nil || e.Value == nil:
			return nil, fmt.Errorf("entry %d has no key or no value; decode it by the codec that it was encoded with", m.Len()+1)
		}
		if _, ok := m.Get(*e.Key); ok {
			return nil, fmt.Errorf("the key %v is there twice", *e.Key)
		}
		var value V
		if err := json.Unmarshal(e.Value, &value); err != nil {
			return nil, fmt.Errorf("the value of key %v: %w", *e.Key, err)
		}
		m.Set(*e.Key, value)
	}
}
