'use strict';
// One login: asks PAM once, and converts its answer to a text for the user.

const { pamAuthenticatePromise, pamErrors } = require('node-linux-pam');

// Outcome and text for each answer of PAM. A text reveals no more than Active Directory reveals after the same password.
const WRONG = ['wrong', 'The user name or the password is wrong.'];
const ANSWERS = new Map([
  [pamErrors.PAM_AUTH_ERR, WRONG],
  [pamErrors.PAM_USER_UNKNOWN, WRONG],
  [pamErrors.PAM_MAXTRIES, ['locked', 'Your account is locked. Try again later or ask your administrator.']],
  [pamErrors.PAM_NEW_AUTHTOK_REQD, ['expired', 'Your password has expired. Choose a new one.']],
  [pamErrors.PAM_ACCT_EXPIRED, ['refused', 'Your account has expired. Ask your administrator.']],
  [pamErrors.PAM_PERM_DENIED, ['refused', 'Your account may not log in. Ask your administrator.']],
]);
// All other answers are no fault of the user. The log has the cause: journalctl -t motion-ad-broker.
const UNAVAILABLE = ['unavailable', 'Nobody can log in at the moment. Try again in a minute.'];

// A login occupies a thread of libuv while PAM runs, at most the 5 seconds of timeout= in /etc/pam.d. The page is still
// served, but the threads are few, so the queue for them is bounded: no login takes longer than four of these times.
const THREADS = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
const AT_ONCE = 4 * THREADS;
let waiting = 0;

/** Asks PAM. Resolves to [outcome, text]; the outcome 'in' grants access. The promise is never rejected. */
async function logIn(username, password, remoteHost) {
  if (waiting >= AT_ONCE) return UNAVAILABLE;
  waiting += 1;
  try {
    await pamAuthenticatePromise({ username, password, remoteHost, serviceName: 'motion-login' });
    return ['in', ''];
  } catch (error) {
    return ANSWERS.get(error.code) ?? UNAVAILABLE;
  } finally {
    waiting -= 1;
  }
}

module.exports = { logIn, UNAVAILABLE };
