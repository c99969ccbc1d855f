'use strict';
// One login: PAM is asked once, and its answer becomes what a person can read.

const { pamAuthenticatePromise, pamErrors } = require('node-linux-pam');

// What an answer of PAM means for the page, and the text for the person. The texts say no more than Active Directory
// tells somebody who has typed the password.
const WRONG = ['wrong', 'The user name or the password is wrong.'];
const ANSWERS = new Map([
  [pamErrors.PAM_AUTH_ERR, WRONG],
  [pamErrors.PAM_USER_UNKNOWN, WRONG],
  [pamErrors.PAM_MAXTRIES, ['locked', 'Your account is locked. Try again later or ask your administrator.']],
  [pamErrors.PAM_NEW_AUTHTOK_REQD, ['expired', 'Your password has expired. Choose a new one.']],
  [pamErrors.PAM_ACCT_EXPIRED, ['refused', 'Your account has expired. Ask your administrator.']],
  [pamErrors.PAM_PERM_DENIED, ['refused', 'Your account may not log in. Ask your administrator.']],
]);
// All the rest is nobody's fault who logs in, and the log says what it is: journalctl -t motion-ad-broker.
const UNAVAILABLE = ['unavailable', 'Nobody can log in at the moment. Try again in a minute.'];

// A login occupies a thread of libuv for as long as PAM takes, at most the 5 seconds of timeout= in /etc/pam.d. The
// page is served meanwhile, but the threads are few, so the queue for them has an end: nobody waits for more than four.
const THREADS = Number(process.env.UV_THREADPOOL_SIZE ?? 4);
const AT_ONCE = 4 * THREADS;
let waiting = 0;

/** Asks PAM. Resolves to [outcome, text]; the outcome is 'in' for who may come in, and it never rejects. */
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
