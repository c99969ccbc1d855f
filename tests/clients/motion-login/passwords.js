'use strict';
// Password changes by the user, also of an expired password. node-linux-pam cannot change passwords, so this file runs
// motion-ad's helper, which does the same as PAM. Each change needs a process, but changes are rare.

const { spawn } = require('child_process');
const { text } = require('./texts');

/**
 * Changes a password. Resolves to [changed, text], with a text in the user's language; changed is null if it is unknown.
 * The passwords go through a pipe, because every user of this server can read arguments.
 */
function changePassword(username, present, next, language) {
  return new Promise((resolve) => {
    const child = spawn('motion-ad', ['passwd', '--json', '--password-stdin', '--lang', language, '--', username], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let printed = '';
    child.stdout.on('data', (part) => (printed += part));
    child.stdin.on('error', () => {}); // It has already ended; its output has the cause.
    child.stdin.end(`${present}\n${next}\n`);
    child.on('error', () => resolve([false, '']));
    child.on('close', () => resolve(answer(printed, language)));
  });
}

function answer(printed, language) {
  try {
    const { changed, text: reason, outcome } = JSON.parse(printed);
    if (changed) return [true, ''];
    return [changed, reason ?? text(language, outcome === 'wrong_password' ? 'presentWrong' : 'notChanged')];
  } catch {
    return [false, text(language, 'noChanges')];
  }
}

module.exports = { changePassword };
