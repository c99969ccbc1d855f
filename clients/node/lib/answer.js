'use strict';
// What an application learns from libpam's code.

// Each outcome of motion-ad: the PAM codes of a login, of a password change and of a session, and the text for the user
// if motion-ad has one. Written by `cargo run --example man -- --outcomes`.
const TABLE = require('./outcomes.json');

/** The names of all outcomes. */
const OUTCOMES = Object.freeze(Object.keys(TABLE));

// libpam's codes by their number (security/_pam_types.h).
const CODES = Object.freeze([
  'PAM_SUCCESS', 'PAM_OPEN_ERR', 'PAM_SYMBOL_ERR', 'PAM_SERVICE_ERR', 'PAM_SYSTEM_ERR', 'PAM_BUF_ERR',
  'PAM_PERM_DENIED', 'PAM_AUTH_ERR', 'PAM_CRED_INSUFFICIENT', 'PAM_AUTHINFO_UNAVAIL', 'PAM_USER_UNKNOWN',
  'PAM_MAXTRIES', 'PAM_NEW_AUTHTOK_REQD', 'PAM_ACCT_EXPIRED', 'PAM_SESSION_ERR', 'PAM_CRED_UNAVAIL',
  'PAM_CRED_EXPIRED', 'PAM_CRED_ERR', 'PAM_NO_MODULE_DATA', 'PAM_CONV_ERR', 'PAM_AUTHTOK_ERR',
  'PAM_AUTHTOK_RECOVERY_ERR', 'PAM_AUTHTOK_LOCK_BUSY', 'PAM_AUTHTOK_DISABLE_AGING', 'PAM_TRY_AGAIN',
  'PAM_IGNORE', 'PAM_ABORT', 'PAM_AUTHTOK_EXPIRED', 'PAM_MODULE_UNKNOWN', 'PAM_BAD_ITEM',
  'PAM_CONV_AGAIN', 'PAM_INCOMPLETE',
]);

// The outcome behind a code, for a service without the module's argument `outcome`, and for other modules.
const COMMON = {
  PAM_AUTH_ERR: 'wrong_password',
  PAM_USER_UNKNOWN: 'unknown_user',
  PAM_MAXTRIES: 'locked_out',
  PAM_NEW_AUTHTOK_REQD: 'password_expired',
  PAM_ACCT_EXPIRED: 'account_expired',
  PAM_AUTHINFO_UNAVAIL: 'unavailable',
};
const BY_CODE = {
  login: { ...COMMON, PAM_PERM_DENIED: 'denied' },
  change: {
    ...COMMON,
    PAM_AUTHTOK_RECOVERY_ERR: 'wrong_password',
    PAM_AUTHTOK_ERR: 'password_refused',
    PAM_PERM_DENIED: 'change_forbidden',
    PAM_TRY_AGAIN: 'unavailable',
    PAM_AUTHINFO_UNAVAIL: 'change_unknown',
  },
  session: { ...COMMON, PAM_PERM_DENIED: 'session_denied', PAM_SESSION_ERR: 'session_store' },
};

// The texts for outcomes without one of motion-ad's own. They tell a stranger nothing about an account.
const WRONG = 'The user name or the password is wrong.';
const REFUSED = 'Your account may not log in. Ask your administrator.';
const UNAVAILABLE = 'Your request could not be completed. Try again in a minute, or ask your administrator.';
const PLAIN = {
  PAM_SUCCESS: '',
  PAM_AUTH_ERR: WRONG,
  PAM_USER_UNKNOWN: WRONG,
  PAM_PERM_DENIED: REFUSED,
};

/** Returns the text for the user of an outcome. */
function textOf(outcome) {
  const { text, login } = TABLE[outcome];
  return text ?? PLAIN[login] ?? UNAVAILABLE;
}

function answer(outcome, code, text = textOf(outcome)) {
  return { ok: false, outcome, code, text, expiresIn: null, session: null };
}

// The table of codes for the call of libpam that decided.
const KIND = { change: 'change', open: 'session', close: 'session' };

/**
 * Converts a reply of the native part. Only PAM_SUCCESS is a success; an outcome only says more about a failure.
 * `session` wraps the session of the reply.
 */
function answerOf(reply, what, session) {
  if (reply.state !== 'done') {
    const unknown = what === 'change' && reply.started;
    return unknown
      ? answer('change_unknown', 'PAM_AUTHINFO_UNAVAIL')
      : answer('unavailable', 'PAM_AUTHINFO_UNAVAIL');
  }
  const code = CODES[reply.code] ?? 'PAM_SYSTEM_ERR';
  if (reply.code === 0) {
    const expires = Number(reply.expiresIn ?? NaN);
    return {
      ok: true,
      outcome: 'success',
      code,
      text: reply.infos.join('\n'),
      expiresIn: Number.isFinite(expires) ? expires : null,
      session,
    };
  }
  const kind = KIND[reply.stage] ?? 'login';
  // The calls for sessions set no outcome: what is there is an earlier call's.
  const named = kind !== 'session' && Object.hasOwn(TABLE, reply.outcome ?? '') ? reply.outcome : null;
  const outcome = named && named !== 'success' ? named : (BY_CODE[kind][code] ?? 'misconfigured');
  const text = reply.errors.join('\n');
  return answer(outcome, code, text === '' ? undefined : text);
}

module.exports = { TABLE, OUTCOMES, CODES, answer, answerOf, textOf };
