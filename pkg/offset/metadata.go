package offset

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// metadataPrefix marks and versions the encoding: alternating lengths of unfinished and finished offsets from the
// committed one on, as varints, in base64.
const metadataPrefix = "h1:"

// maxMetadata keeps below the broker's default offset.metadata.max.bytes of 4,096.
const maxMetadata = 4000

// encodeRuns writes as many runs as fit; what does not fit is repeated after a crash.
func encodeRuns(base int64, runs []Run) string {
	if len(runs) == 0 {
		return ""
	}
	const capacity = (maxMetadata - len(metadataPrefix)) / 4 * 3
	var b []byte
	for _, r := range runs {
		next := binary.AppendUvarint(b, uint64(r.From-base))
		next = binary.AppendUvarint(next, uint64(r.To-r.From))
		if len(next) > capacity {
			break
		}
		b, base = next, r.To
	}
	return metadataPrefix + base64.RawStdEncoding.EncodeToString(b)
}

// decodeRuns reads what encodeRuns wrote, up to the first byte that makes no sense.
func decodeRuns(base int64, metadata string) []Run {
	encoded, ok := strings.CutPrefix(metadata, metadataPrefix)
	if !ok {
		return nil
	}
	b, err := base64.RawStdEncoding.DecodeString(encoded)
	if err != nil {
		return nil
	}
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
