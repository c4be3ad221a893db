package atomicdir

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// mountBelow returns a mount point at dir or below it, or "". It also finds a bind
// mount of the same file system, which a comparison of devices does not find.
func mountBelow(dir string) (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", nil // there is no /proc: only the comparison of devices is left
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
			return point, nil
		}
	}
	return "", nil
}

// unescape decodes \040 and the like, which stand for white space: see proc(5).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
