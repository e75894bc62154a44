package pages

import (
	"math"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/text/currency"
	"golang.org/x/text/number"
)

// wholeCurrencies are those whose minor unit is the unit itself, for Polar. ISO
// and CLDR have others: by their word an amount would be told wrong a hundredfold.
//
// Source: Polar's own formatting, @polar-sh/currency
var wholeCurrencies = []string{
	"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF",
}

func decimals(code string) int {
	if slices.Contains(wholeCurrencies, code) {
		return 0
	}
	return 2
}

// Money is an amount in minor units as the visitor writes it.
func (l *Locale) Money(minor int64, code string) string {
	code = strings.ToUpper(code)
	digits := decimals(code)
	major := float64(minor) / math.Pow10(digits)
	return l.withSymbol(l.print.Sprint(number.Decimal(major, number.Scale(digits))), code)
}

// UnitPrice is a decimal amount in minor units, of which fractions are told too:
// what is metered can cost less than a cent. What is no number is empty.
func (l *Locale) UnitPrice(minor, code string) string {
	code = strings.ToUpper(code)
	amount, ok := new(big.Rat).SetString(minor)
	if !ok || len(minor) > 40 || strings.ContainsAny(minor, "eE/") {
		return ""
	}
	digits := decimals(code)
	major, _ := amount.Quo(amount, big.NewRat(int64(math.Pow10(digits)), 1)).Float64()
	return l.withSymbol(l.print.Sprint(number.Decimal(major, number.MinFractionDigits(digits), number.MaxFractionDigits(12))), code)
}

// isCode says whether something can be the code of a currency.
func isCode(code string) bool {
	return len(code) == 3 && strings.Trim(strings.ToUpper(code), "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// withSymbol puts the currency where the language has it.
func (l *Locale) withSymbol(amount, code string) string {
	symbol := code // of a currency that is not known here
	if unit, err := currency.ParseISO(code); err == nil {
		symbol = l.print.Sprint(currency.Symbol(unit))
	}
	const space = "\u00a0" // no line ends there
	switch {
	case l.symbol == symbolAfter:
		return amount + space + symbol
	case l.symbol == symbolApart || symbol == code:
		return symbol + space + amount
	}
	return symbol + amount
}
