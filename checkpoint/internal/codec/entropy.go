package codec

import "math"

// sample is how much of a chunk is looked at, in bytes, to guess how the rest
// is. It takes half a microsecond.
const sample = 1 << 10

// shortBytes is how many bits each byte may need for it to pay to code byte by
// byte. That costs ten times as much as to find that nothing repeats itself.
const shortBytes = 6.25

// paysByByte guesses whether giving the commoner bytes of data shorter codes
// makes it shorter by about a quarter, as in lines of numbers.
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
