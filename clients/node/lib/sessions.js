'use strict';
// The sessions of this host, by motion-ad's own commands. Their output is public (man motion-ad-sessions-watch); the
// protocol between the module and the broker is not.

const { execFile, spawn } = require('node:child_process');
const { createInterface } = require('node:readline');
const { promisify } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');

const COMMAND = 'motion-ad';
// Milliseconds before a command that was killed is started again.
const PAUSE = 1000;

/**
 * Yields an object for each event of a session. One child process waits for them; if it is killed, another one goes on
 * after the last event.
 */
async function* watch({ after, signal, command = COMMAND } = {}) {
  let cursor = after;
  for (;;) {
    signal?.throwIfAborted();
    const child = spawn(command, ['sessions', 'watch', ...(cursor === undefined ? [] : ['--after', cursor])], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    ended.catch(() => {}); // Reported below, or not at all if the caller has stopped.
    const stop = () => child.kill();
    signal?.addEventListener('abort', stop, { once: true });
    try {
      for await (const line of createInterface({ input: child.stdout })) {
        const event = JSON.parse(line);
        cursor = event.cursor;
        yield event;
      }
      const status = await ended;
      signal?.throwIfAborted();
      // It ends by itself only where waiting changes nothing: this user may not ask.
      if (status !== null) throw new Error(`${command} sessions watch ended with status ${status}`);
    } finally {
      signal?.removeEventListener('abort', stop);
      stop();
    }
    await sleep(PAUSE, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** Resolves to the open sessions. */
async function list({ signal, command = COMMAND } = {}) {
  const { stdout } = await promisify(execFile)(command, ['sessions', 'list', '--json'], {
    signal,
    maxBuffer: 64 * 1024 * 1024,
  });
  return JSON.parse(stdout);
}

module.exports = { watch, list };
