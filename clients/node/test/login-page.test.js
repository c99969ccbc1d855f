'use strict';
// The texts of the example of a login page are those of motion-ad, in each language.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { TABLE, textOf } = require('../lib/answer');
const { TEXTS, SAME } = require('../../../tests/clients/motion-login/texts');

const CATALOGUE = path.join(__dirname, '../../../src/texts/catalogue');

test('each outcome has the text of the catalogue, in the same languages', () => {
  const files = fs.readdirSync(CATALOGUE).filter((name) => name.endsWith('.ftl'));
  assert.deepEqual(Object.keys(TEXTS).sort(), files.map((name) => name.slice(0, -'.ftl'.length)).sort());
  for (const [language, { outcomes }] of Object.entries(TEXTS)) {
    const messages = fs.readFileSync(path.join(CATALOGUE, `${language}.ftl`), 'utf8');
    for (const outcome of Object.keys(TABLE).filter((name) => TABLE[name].text !== null)) {
      const [, text] = messages.match(new RegExp(`^${outcome} = (.*)$`, 'm'));
      assert.equal(outcomes[SAME[outcome] ?? outcome], text, `${language}, ${outcome}`);
    }
  }
});

test('every other outcome has the text of the package in English, and no text is missing in another language', () => {
  const { outcomes } = TEXTS.en;
  for (const outcome of Object.keys(TABLE).filter((name) => name !== 'success')) {
    assert.equal(outcomes[SAME[outcome] ?? outcome], textOf(outcome), outcome);
  }
  const names = (value) => (typeof value === 'string' ? value.length > 0 : Object.keys(value).map((key) => [key, names(value[key])]));
  for (const [language, texts] of Object.entries(TEXTS)) assert.deepEqual(names(texts), names(TEXTS.en), language);
});
