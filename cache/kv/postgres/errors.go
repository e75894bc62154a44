package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caddy-polar/caddy-polar/cache/kv"
)

// Why a database cannot be used.
var (
	ErrDSN         = errors.New("the dsn cannot be read")
	ErrNewer       = errors.New("the store's tables were made by a newer version")
	ErrUnreachable = kv.ErrUnreachable
	ErrRefused     = errors.New("the database does not let the gateway in")
	ErrRights      = errors.New("the database's user has not the rights that a store needs")
	ErrReadOnly    = errors.New("the database is read-only")
	ErrGone        = errors.New("the store's tables are gone")
	ErrEncoding    = errors.New("the database does not keep UTF-8")

	errBusy  = errors.New("another gateway has been writing for too long")
	errNoKey = errors.New("a key is empty")
)

// The states of SQL that are told apart.
//
// Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	undefinedTable  = "42P01"
	undefinedSchema = "3F000"
	noRights        = "42501"
	readOnly        = "25006"
	wrongPassword   = "28P01"
	notLetIn        = "28000"
	noDatabase      = "3D000"
	notSerializable = "40001"
	deadlock        = "40P01"
	noStatement     = "26000"
	sameStatement   = "42P05"
	changedPlan     = "0A000"
	lockTimeout     = "55P03"
	tooManyClients  = "53300"
	protocolError   = "08P01" // said by poolers
	connectionClass = "08"
	shutdownClass   = "57P" // also: it is starting up
	adminShutdown   = "57P01"
)

// unwritable are the classes of what a server does not write, whatever else is written.
var unwritable = []string{"22", "23", "54"}

// isUnwritable says that a record cannot be written.
func isUnwritable(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.ContainsFunc(unwritable, func(class string) bool { return strings.HasPrefix(failure.Code, class) })
}

// isGone says that somebody has dropped the tables.
func isGone(err error) bool { return is(err, undefinedTable, undefinedSchema) }

// isConflict says that a transaction was given up for another one.
func isConflict(err error) bool { return is(err, notSerializable, deadlock) }

// refused says that the server has answered with an error, and so done nothing. What ends
// the connection can come after all was done.
func refused(err error) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && failure.SeverityUnlocalized == "ERROR"
}

// is says whether the server has answered with one of some states.
func is(err error, states ...string) bool {
	failure, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(states, failure.Code)
}

// isForgotten says that a connection does not have the statements that were prepared on
// it, or others.
func isForgotten(err error) bool { return is(err, noStatement, sameStatement) }

// isPlanned says that a statement was prepared for a table that is another one now.
func isPlanned(err error) bool { return is(err, changedPlan) }

// isFull says that the server takes no more connections.
func isFull(err error) bool { return is(err, tooManyClients) }

// isBroken says that a connection has ended, or the server has ended it.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		is(err, adminShutdown)
}

// explain puts an error of the database into a sentence that says what to do. None of
// them has the connection string, nor the place, which the store says.
func explain(err error) error {
	var why error
	advice := ""
	failure, told := errors.AsType[*pgconn.PgError](err)
	switch {
	case isGone(err):
		why, advice = ErrGone, "reload the configuration, and they are made anew, to be filled from Polar; or restore a copy"
	case errors.Is(err, ErrEncoding):
		why, advice = err, "create one with ENCODING 'UTF8'"
	case errors.Is(err, ErrNewer):
		why, advice = err, "run the newer version"
	case told && failure.Code == noRights:
		why, advice = ErrRights, "the gateway's user must own its schema: CREATE SCHEMA polar AUTHORIZATION that_user"
	case told && failure.Code == readOnly:
		why, advice = ErrReadOnly, "is it a replica? name the primary in the dsn"
	case told && (failure.Code == wrongPassword || failure.Code == notLetIn):
		why, advice = ErrRefused, "check user and password in the dsn, and the server's pg_hba.conf"
	case told && failure.Code == noDatabase:
		why, advice = ErrRefused, "there is no such database: create it, or check the dsn"
	case told && failure.Code == protocolError:
		why, advice = fmt.Errorf("%w: %s", ErrRefused, failure.Message), "a pooler must be in transaction or session mode"
	case told && (failure.Code == tooManyClients || strings.HasPrefix(failure.Code, connectionClass) || strings.HasPrefix(failure.Code, shutdownClass)):
		why, advice = fmt.Errorf("%w: %s", ErrUnreachable, failure.Message), "it takes no more connections, or is not up yet"
	case told && failure.Code == lockTimeout:
		why, advice = errBusy, "it is given up soon"
	case told:
		why = fmt.Errorf("%s (SQLSTATE %s)", failure.Message, failure.Code)
	case isNoTLS(err):
		why, advice = ErrUnreachable, "it does not speak TLS as the dsn's sslmode wants, or its certificate does not do"
	case isNoHost(err):
		why, advice = ErrUnreachable, "the host in the dsn has no address: check the name, and the resolver"
	case isUnreachable(err):
		why, advice = ErrUnreachable, "is it running, and does the dsn name its host and port?"
	default:
		why = err
	}
	if advice == "" {
		return why
	}
	return fmt.Errorf("%w: %s", why, advice)
}

// isNoTLS says that the server was reached, and TLS failed.
func isNoTLS(err error) bool {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return connecting && (certificate || alert || strings.Contains(err.Error(), "tls error"))
}

func isNoHost(err error) bool {
	_, resolving := errors.AsType[*net.DNSError](err)
	return resolving
}

func isUnreachable(err error) bool {
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return connecting || network || isBroken(err) || errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err)
}
