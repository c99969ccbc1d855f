'use strict';
// The six properties of XCALLY's page, from the environment.

const NAMES = ['STRATEGY', 'ADMIN', 'PASSWORD', 'BASE_DN', 'URL', 'DOMAIN'];

module.exports = function properties() {
  const value = (name) => process.env[`XC_ACTIVEDIRECTORY_${name}`] || undefined;
  const all = Object.fromEntries(NAMES.map((name) => [name, value(name)]));
  for (const name of ['BASE_DN', 'URL', 'DOMAIN']) {
    if (!all[name]) throw new Error(`XC_ACTIVEDIRECTORY_${name} is not set`);
  }
  return all;
};
