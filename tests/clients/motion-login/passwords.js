'use strict';
// Password changes by the user, also of an expired password. node-linux-pam cannot change passwords, so this file runs
// motion-ad's helper, which does the same as PAM. Each change needs a process, but changes are rare.

const { spawn } = require('child_process');

/**
 * Changes a password. Resolves to [changed, text], with a text for the user; changed is null if it is unknown.
 * The passwords go through a pipe, because every user of this server can read arguments.
 */
function changePassword(username, present, next) {
  return new Promise((resolve) => {
    const child = spawn('motion-ad', ['passwd', '--json', '--password-stdin', '--', username], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let printed = '';
    child.stdout.on('data', (part) => (printed += part));
    child.stdin.on('error', () => {}); // It has already ended; its output has the cause.
    child.stdin.end(`${present}\n${next}\n`);
    child.on('error', () => resolve([false, '']));
    child.on('close', () => resolve(answer(printed)));
  });
}

function answer(printed) {
  try {
    const { changed, text, outcome } = JSON.parse(printed);
    if (changed) return [true, ''];
    const wrong = outcome === 'wrong_password' ? 'The present password is wrong.' : null;
    return [changed, text ?? wrong ?? 'The password was not changed. Ask your administrator.'];
  } catch {
    return [false, 'Passwords cannot be changed at the moment. Try again in a minute.'];
  }
}

module.exports = { changePassword };
