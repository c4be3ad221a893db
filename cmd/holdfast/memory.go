package main

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// memoryFlag adds the flag that bounds the memory for data under way.
func (p *program) memoryFlag(cmd *cobra.Command) {
	cmd.Flags().Func("memory", "take at most `SIZE` of memory for data under way, such as 64MiB or 1GiB (default: 192MiB); with more, more requests can be under way", bytesOf(&p.memory))
}

var errSize = errors.New("it must be a number of KiB, MiB or GiB, such as 64MiB or 1GiB; 1MiB at least")

const leastMemory = 1 << 20 // as checkpoint.Options has it

// bytesOf returns a flag's function that reads a size in bytes, with a unit.
func bytesOf(dst *int64) func(string) error {
	return func(v string) error {
		for unit, shift := range map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30} {
			digits, ok := strings.CutSuffix(v, unit)
			if !ok {
				continue
			}
			n, err := strconv.ParseUint(digits, 10, 63)
			if err != nil || n == 0 || n > math.MaxInt64>>shift || n<<shift < leastMemory {
				return errSize
			}
			*dst = int64(n) << shift
			return nil
		}
		return errSize
	}
}
