'use strict';
// One login: asks PAM once, and converts its answer to an outcome and the name of a text for the user (texts.js).

const { pamAuthenticatePromise, pamErrors } = require('node-linux-pam');

// Outcome and text for each answer of PAM.
const WRONG = ['wrong', 'wrong'];
const ANSWERS = new Map([
  [pamErrors.PAM_AUTH_ERR, WRONG],
  [pamErrors.PAM_USER_UNKNOWN, WRONG],
  [pamErrors.PAM_MAXTRIES, ['locked', 'locked']],
  [pamErrors.PAM_NEW_AUTHTOK_REQD, ['expired', 'expired']],
  [pamErrors.PAM_ACCT_EXPIRED, ['refused', 'accountExpired']],
  [pamErrors.PAM_PERM_DENIED, ['refused', 'refused']],
]);
// All other answers are no fault of the user. The log has the cause: journalctl -t motion-ad-broker.
const UNAVAILABLE = ['unavailable', 'unavailable'];

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
    return ['in'];
  } catch (error) {
    return ANSWERS.get(error.code) ?? UNAVAILABLE;
  } finally {
    waiting -= 1;
  }
}

module.exports = { logIn, UNAVAILABLE };
