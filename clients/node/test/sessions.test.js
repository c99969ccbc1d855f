'use strict';
// sessions.watch() and sessions.list(), with a script in place of the command motion-ad.

const test = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const PACKAGE = process.env.MOTION_AD_CLIENT ?? path.join(__dirname, '..');
const { watch, list } = require(path.join(PACKAGE, 'lib/sessions'));

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'motion-ad-client-'));
process.on('exit', () => fs.rmSync(folder, { recursive: true }));

function command(name, text) {
  const file = path.join(folder, name);
  fs.writeFileSync(file, `#!/bin/sh\necho "$*" >>${folder}/${name}.calls\n${text}\n`, { mode: 0o755 });
  return { file, calls: () => fs.readFileSync(`${file}.calls`, 'utf8').trim().split('\n') };
}

const line = (event, cursor) => `echo '${JSON.stringify({ event, cursor })}'`;

test('events arrive as they are printed, and the child ends with the loop', async () => {
  const lines = `${line('ready', 'a')}\n${line('opened', 'b')}`;
  const { file, calls } = command('plain', `${lines}\necho $$ >${folder}/pid\nexec sleep 60`);
  const seen = [];
  for await (const event of watch({ command: file })) {
    seen.push(event.cursor);
    if (event.event === 'opened') break;
  }
  assert.deepEqual(seen, ['a', 'b']);
  assert.deepEqual(calls(), ['sessions watch']);
  const pid = Number(fs.readFileSync(path.join(folder, 'pid'), 'utf8'));
  const gone = () => {
    try {
      process.kill(pid, 0);
      return false;
    } catch {
      return true;
    }
  };
  for (let waited = 0; !gone() && waited < 100; waited += 1) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.ok(gone());
});

test('a child that was killed is replaced, after the last event', async () => {
  const { file, calls } = command('killed', `case "$*" in
    *--after*) ${line('ended', 'c')}; exec sleep 60 ;;
    *) ${line('ready', 'a')}; ${line('opened', 'b')}; kill -9 $$ ;;
  esac`);
  const seen = [];
  for await (const { cursor } of watch({ command: file })) {
    seen.push(cursor);
    if (cursor === 'c') break;
  }
  assert.deepEqual(seen, ['a', 'b', 'c']);
  assert.deepEqual(calls(), ['sessions watch', 'sessions watch --after b']);
});

test('a refusal and a missing command are errors', async () => {
  const { file } = command('refused', 'exit 2');
  await assert.rejects(watch({ command: file }).next(), /ended with status 2/);
  await assert.rejects(watch({ command: path.join(folder, 'absent') }).next(), { code: 'ENOENT' });
});

test('a signal ends the loop while nothing happens', async () => {
  const { file } = command('quiet', 'exec sleep 60');
  const abort = new AbortController();
  const next = watch({ command: file, signal: abort.signal }).next();
  setTimeout(() => abort.abort(new Error('enough')), 100);
  await assert.rejects(next, /enough/);
  await assert.rejects(watch({ command: file, signal: abort.signal }).next(), /enough/);
});

test('the list is the command\'s', async () => {
  const { file, calls } = command('list', `echo '[{"id":"a"}]'`);
  assert.deepEqual(await list({ command: file }), [{ id: 'a' }]);
  assert.deepEqual(calls(), ['sessions list --json']);
});
