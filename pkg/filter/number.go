package filter

import (
	"bytes"
	"cmp"
	"math"
)

// decimal is a JSON number as 0.d₁d₂d₃… × 10^exponent, with d₁ ≠ 0: two spellings of one number are equal, and nothing is
// rounded, however many digits there are.
type decimal struct {
	negative bool
	zero     bool
	exponent int64
	// The digits are those of whole, then those of fraction. Zeros at the end mean nothing.
	whole, fraction []byte
}

// parseNumber reads a JSON number that has been checked. It copies nothing.
func parseNumber(b []byte) (d decimal) {
	if len(b) > 0 && b[0] == '-' {
		d.negative, b = true, b[1:]
	}
	mantissa, exponent := b, []byte(nil)
	if i := bytes.IndexAny(b, "eE"); i >= 0 {
		mantissa, exponent = b[:i], b[i+1:]
	}
	d.whole, d.fraction, _ = bytes.Cut(mantissa, []byte("."))
	d.exponent = parseExponent(exponent)
	d.whole = bytes.TrimLeft(d.whole, "0")
	d.exponent += int64(len(d.whole))
	if len(d.whole) == 0 {
		trimmed := bytes.TrimLeft(d.fraction, "0")
		d.exponent -= int64(len(d.fraction) - len(trimmed))
		d.fraction = trimmed
	}
	d.zero = len(d.whole) == 0 && len(d.fraction) == 0
	return d
}

// parseExponent stops growing at a number that no filter can have and no event reaches with its digits alone.
func parseExponent(b []byte) (e int64) {
	negative := len(b) > 0 && b[0] == '-'
	for _, c := range bytes.TrimLeft(b, "+-") {
		if e < math.MaxInt64/1_000_000 {
			e = e*10 + int64(c-'0')
		}
	}
	if negative {
		return -e
	}
	return e
}

func (d *decimal) digits() int { return len(d.whole) + len(d.fraction) }

func (d *decimal) digit(i int) byte {
	switch {
	case i < len(d.whole):
		return d.whole[i]
	case i < d.digits():
		return d.fraction[i-len(d.whole)]
	default:
		return '0'
	}
}

// compare is -1, 0 or 1.
func (d *decimal) compare(o *decimal) int {
	if sign := cmp.Compare(d.sign(), o.sign()); sign != 0 || d.zero {
		return sign
	}
	size := cmp.Compare(d.exponent, o.exponent)
	for i := 0; size == 0 && i < max(d.digits(), o.digits()); i++ {
		size = cmp.Compare(d.digit(i), o.digit(i))
	}
	if d.negative {
		return -size
	}
	return size
}

func (d *decimal) sign() int {
	switch {
	case d.zero:
		return 0
	case d.negative:
		return -1
	default:
		return 1
	}
}
