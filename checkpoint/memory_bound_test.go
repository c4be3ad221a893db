package checkpoint

import (
	"context"
	"testing"

	"pgregory.net/rapid"
)

// memoryUser takes and gives back buffers, and counts lists, as saves and restores do.
type memoryUser struct {
	m       *memory
	done    func()
	buffers [][]byte
	inUse   int64 // what buffers count
	lists   []int64
}

func (u *memoryUser) take(t *rapid.T) {
	n := rapid.SampledFrom([]int{1, u.m.fetch, u.m.segment, u.m.segment, int(u.m.most), 3 * int(u.m.most)}).Draw(t, "size")
	u.m.lend()
	free := u.m.most - u.inUse - u.m.lent
	if u.m.weight(n) > free {
		if len(u.buffers) == 0 {
			t.Fatalf("%d of %d bytes are free although nobody has a buffer: a buffer of %d would wait for ever", free, u.m.most, n)
		}
		t.Skip("it would wait")
	}
	buf, err := u.m.take(context.Background(), n)
	if err != nil || cap(buf) < n {
		t.Fatalf("a buffer with room for %d, want %d: %v", cap(buf), n, err)
	}
	u.buffers, u.inUse = append(u.buffers, buf), u.inUse+u.m.weight(cap(buf))
}

func (u *memoryUser) give(t *rapid.T) {
	if len(u.buffers) == 0 {
		t.Skip("no buffer")
	}
	buf := u.buffers[0]
	weight := u.m.weight(cap(buf))
	u.buffers, u.inUse = u.buffers[1:], u.inUse-weight
	want := u.m.lent
	if want+weight <= u.m.owing() {
		want += weight
	}
	if u.m.give(buf); u.m.lent != want {
		t.Fatalf("%d bytes are lent, want %d: lists get what is given back, though others wait for it", u.m.lent, want)
	}
}

func (u *memoryUser) list(t *rapid.T) {
	n := rapid.Int64Range(1, u.m.most).Draw(t, "list")
	u.lists = append(u.lists, n)
	u.m.count(n)
}

func (u *memoryUser) forget(t *rapid.T) {
	if len(u.lists) == 0 {
		t.Skip("no list")
	}
	u.m.count(-u.lists[0])
	u.lists = u.lists[1:]
}

func (u *memoryUser) check(t *rapid.T) {
	all := int64(0)
	for _, n := range u.lists {
		all += n
	}
	switch {
	case u.m.lent > min(all, u.m.most/2):
		t.Fatalf("%d bytes are lent to lists of %d", u.m.lent, all)
	case u.inUse+u.m.lent > u.m.most:
		t.Fatalf("%d bytes in buffers and %d in lists, of %d", u.inUse, u.m.lent, u.m.most)
	}
}

// Lists leave less to buffers, but always half. Nobody waits for memory that nobody has, and all comes back.
func TestListsAndBuffersShareTheMemory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory(minMemory)
		u := &memoryUser{m: m, done: m.open()}
		t.Repeat(map[string]func(*rapid.T){"take": u.take, "take more": u.take, "give": u.give, "list": u.list, "forget": u.forget, "": u.check})
		for len(u.buffers) > 0 {
			u.give(t)
		}
		u.take(t) // by now lists have all that they are to have
		all := int64(0)
		for _, n := range u.lists {
			all += n
		}
		if want := min(all-all%int64(m.segment), m.most/2); m.lent != want {
			t.Fatalf("%d bytes are lent, want %d", m.lent, want)
		}
		u.give(t)
		m.count(-all)
		if u.done(); m.lent != 0 || m.size != 0 || !m.buffers.TryAcquire(m.most) {
			t.Fatalf("%d bytes are lent and %d kept after everything has ended", m.lent, m.size)
		}
	})
}
