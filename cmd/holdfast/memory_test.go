package main

import "testing"

func TestBytesOf(t *testing.T) {
	for text, want := range map[string]int64{"2000KiB": 2000 << 10, "1MiB": 1 << 20, "192MiB": 192 << 20, "3GiB": 3 << 30, "8589934591GiB": 8589934591 << 30} {
		got := int64(0)
		if err := bytesOf(&got)(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "1MB", "MiB", "-1MiB", "0GiB", "1023KiB", "1.5GiB", "8589934592GiB", "1 MiB", "1mib"} {
		got := int64(0)
		if err := bytesOf(&got)(text); err == nil || got != 0 {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}
