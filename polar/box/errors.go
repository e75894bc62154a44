package box

import "net/http"

// Error is a refusal of Polar.
type Error struct {
	Status int
	Code   string // the "error" of the body
	Detail string
	Issues []Issue // of a 422
}

// Issue is one finding of a 422.
type Issue struct {
	Type  string `json:"type"`
	Loc   []any  `json:"loc"`
	Msg   string `json:"msg"`
	Input any    `json:"input"`
}

func (e *Error) Error() string {
	if e.Detail == "" && len(e.Issues) > 0 {
		return e.Code + ": " + e.Issues[0].Msg
	}
	return e.Code + ": " + e.Detail
}

func notFound() *Error {
	return &Error{Status: http.StatusNotFound, Code: "ResourceNotFound", Detail: "Not found"}
}

func forbidden(code, detail string) *Error {
	return &Error{Status: http.StatusForbidden, Code: code, Detail: detail}
}

func conflict(code, detail string) *Error {
	return &Error{Status: http.StatusConflict, Code: code, Detail: detail}
}

func paymentFailed() *Error {
	return &Error{Status: http.StatusPaymentRequired, Code: "PaymentFailed", Detail: "The payment failed."}
}

func invalid(msg string, input any, loc ...any) *Error {
	return &Error{Status: http.StatusUnprocessableEntity, Code: "PolarRequestValidationError", Issues: []Issue{{"value_error", append([]any{"body"}, loc...), msg, input}}}
}
