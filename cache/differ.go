package cache

import "github.com/caddy-polar/caddy-polar/entitlement"

// What the journal tells of each kind of object: the fields that matter for access,
// by Polar's names.

// fieldUser is the field that names a user.
const fieldUser = "external_id"

func customerDiff(d *diff, was, is *entitlement.Customer) {
	d.text(fieldUser, was.ExternalID, is.ExternalID)
	d.time("deleted_at", was.DeletedAt, is.DeletedAt)
}

func subscriptionDiff(d *diff, was, is *entitlement.Subscription) {
	d.text("status", string(was.Status), string(is.Status))
	d.text("product_id", was.ProductID, is.ProductID)
	d.time("current_period_end", was.PeriodEnd, is.PeriodEnd)
	d.time("trial_end", was.TrialEnd, is.TrialEnd)
	d.bool("cancel_at_period_end", was.CancelAtPeriodEnd, is.CancelAtPeriodEnd)
	d.bool("pause_at_period_end", was.PauseAtPeriodEnd, is.PauseAtPeriodEnd)
	d.time("canceled_at", was.CanceledAt, is.CanceledAt)
	d.time("ends_at", was.EndsAt, is.EndsAt)
	d.time("ended_at", was.EndedAt, is.EndedAt)
	d.time("past_due_at", was.PastDueAt, is.PastDueAt)
	d.time("paused_at", was.PausedAt, is.PausedAt)
	d.time("resumes_at", was.ResumesAt, is.ResumesAt)
	d.count("seats", was.SeatCount, is.SeatCount)
	d.text("pending_update.product_id", was.PendingProductID, is.PendingProductID)
	d.count("pending_update.seats", was.PendingSeats, is.PendingSeats)
	d.time("pending_update.applies_at", was.PendingAt, is.PendingAt)
}

func orderDiff(d *diff, was, is *entitlement.Order) {
	d.text("status", string(was.Status), string(is.Status))
	d.text("product_id", was.ProductID, is.ProductID)
}

func grantDiff(d *diff, was, is *entitlement.Grant) {
	d.text("benefit_id", was.BenefitID, is.BenefitID)
	d.bool("is_granted", was.Granted, is.Granted)
	d.bool("is_revoked", was.Revoked, is.Revoked)
	d.time("revoked_at", was.RevokedAt, is.RevokedAt)
}

func refundDiff(d *diff, was, is *entitlement.Refund) {
	d.bool("succeeded", was.Succeeded, is.Succeeded)
	d.bool("revoke_benefits", was.RevokeBenefits, is.RevokeBenefits)
	d.bool("disputed", was.Disputed, is.Disputed)
	d.bool("dispute_lost", was.DisputeLost, is.DisputeLost)
}

func memberDiff(d *diff, was, is *entitlement.Member) {
	d.text(fieldUser, was.ExternalID, is.ExternalID)
	d.text("role", string(was.Role), string(is.Role))
	d.bool("deleted", was.Deleted, is.Deleted)
}

func seatDiff(d *diff, was, is *entitlement.Seat) {
	d.bool("claimed", was.Claimed, is.Claimed)
	d.bool("revoked", was.Revoked, is.Revoked)
	d.text("member_id", was.MemberID, is.MemberID)
}
