package codec

import "math"

// sample is how much of a chunk is looked at, in bytes, to guess how the rest
// is. It takes half a microsecond.
const sample = 1 << 10

// shortBytes is up to how many bits per byte entropy coding is worthwhile. It takes ten
// times as long as finding out that there are no repetitions.
const shortBytes = 6.25

// paysByByte estimates whether entropy coding makes data shorter by about a quarter, as it
// does with lines of numbers.
func paysByByte(data []byte) bool {
	if len(data) > sample {
		data = data[(len(data)-sample)/2:][:sample]
	}
	return entropy(data) <= shortBytes
}

// entropy returns how many bits each of up to sample bytes needs at least, if
// each is coded by itself.
func entropy(p []byte) float64 {
	var count [256]int
	for _, b := range p {
		count[b]++
	}
	sum := nlogn[len(p)]
	for _, n := range count {
		sum -= nlogn[n]
	}
	return sum / float64(len(p))
}

// nlogn has n log2 n for each n.
var nlogn = func() (table [sample + 1]float64) {
	for n := 2; n <= sample; n++ {
		table[n] = float64(n) * math.Log2(float64(n))
	}
	return table
}()
