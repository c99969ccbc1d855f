'use strict';
// A person's own change of the password, an expired one too. node-linux-pam cannot change passwords, so this asks
// motion-ad's helper, which does what PAM would: one process for each change, and changes are rare.

const { spawn } = require('child_process');

/**
 * Changes a password. Resolves to [changed, text], the text for the person; changed is null where nobody knows.
 * The passwords go through a pipe: arguments could be read by every user of this server.
 */
function changePassword(username, present, next) {
  return new Promise((resolve) => {
    const child = spawn('motion-ad', ['passwd', '--json', '--password-stdin', '--', username], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let printed = '';
    child.stdout.on('data', (part) => (printed += part));
    child.stdin.on('error', () => {}); // It has ended already; what it printed says why.
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
