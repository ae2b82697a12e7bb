package offset

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// The encodings of what is finished above a committed offset, in base64. Runs are alternating lengths of unfinished and
// finished offsets, as varints; bits are one bit an offset, lowest first. Runs are short where little is unfinished, bits
// where much is, in no order.
const (
	prefixRuns = "h1:"
	prefixBits = "h2:"
)

// capacity in bytes keeps prefix and base64 below the broker's default offset.metadata.max.bytes of 4,096.
const capacity int64 = (4000 - 3) / 4 * 3

// encode writes what fits, in the encoding that reaches further; what does not fit is repeated after a crash.
func encode(base int64, runs []Run) string {
	if len(runs) == 0 {
		return ""
	}
	b, reached := encodeRuns(base, runs)
	prefix := prefixRuns
	if reached < runs[len(runs)-1].To && base+8*capacity > reached {
		b, prefix = encodeBits(base, runs), prefixBits
	}
	return prefix + base64.RawStdEncoding.EncodeToString(b)
}

// encodeRuns writes as many runs as fit, and says how far they reach.
func encodeRuns(base int64, runs []Run) (b []byte, reached int64) {
	for _, r := range runs {
		next := binary.AppendUvarint(b, uint64(r.From-base))
		next = binary.AppendUvarint(next, uint64(r.To-r.From))
		if int64(len(next)) > capacity {
			break
		}
		b, base = next, r.To
	}
	return b, base
}

func encodeBits(base int64, runs []Run) []byte {
	b := make([]byte, capacity)
	for _, r := range runs {
		for i := r.From - base; i < min(r.To-base, 8*capacity); i++ {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

// decode reads what encode wrote, up to the first byte that makes no sense.
func decode(base int64, metadata string) []Run {
	read := decodeRuns
	encoded, ok := strings.CutPrefix(metadata, prefixRuns)
	if !ok {
		encoded, ok = strings.CutPrefix(metadata, prefixBits)
		read = decodeBits
	}
	b, err := base64.RawStdEncoding.DecodeString(encoded)
	if !ok || err != nil {
		return nil
	}
	return read(base, b)
}

func decodeRuns(base int64, b []byte) []Run {
	const longest = 1 << 40
	var runs []Run
	for len(b) > 0 {
		skip, n := binary.Uvarint(b)
		if n <= 0 || skip > longest {
			return runs
		}
		length, m := binary.Uvarint(b[n:])
		if m <= 0 || length == 0 || length > longest {
			return runs
		}
		from := base + int64(skip)
		runs = append(runs, Run{from, from + int64(length)})
		base, b = from+int64(length), b[n+m:]
	}
	return runs
}

func decodeBits(base int64, b []byte) []Run {
	var runs []Run
	for i := range 8 * int64(len(b)) {
		if b[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].To == base+i {
			runs[n-1].To++
		} else {
			runs = append(runs, Run{base + i, base + i + 1})
		}
	}
	return runs
}
