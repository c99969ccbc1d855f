'use strict';
// Logs in as applications do that speak LDAP: `login.js LIBRARY`.
//
// A line of JSON on standard input is a login: id, url, base, name, password, find (the name that the account is found
// by), and, with an admin, admin and secret. Its answer is a line of JSON: the id, whether the library lets the person
// in, what it says, and the groups that it found.

const readline = require('readline');

const library = require(process.argv[2]);
const { Client } = require('ldapts');

const attribute = (name) => (name.includes('@') ? 'userPrincipalName' : 'sAMAccountName');
const common = (group) => group.cn ?? /^cn=((?:\\.|[^,])+)/i.exec(group.objectName ?? group.dn)[1];

// A function that calls back, as a promise of everything that it calls back with but the error.
const promise = (call) => new Promise((resolve, reject) => call((error, value) => (error ? reject(error) : resolve(value))));

async function activedirectory({ url, base, name, password, find, admin, secret }) {
  const directory = new library({ url, baseDN: base, username: admin, password: secret });
  if (!(await promise((done) => directory.authenticate(name, password, done)))) throw new Error('not authenticated');
  if (!admin) return [];
  const user = await promise((done) => directory.findUser(find, done));
  if (!user?.dn) throw new Error('findUser found nothing');
  return (await promise((done) => directory.getGroupMembershipForUser(find, done))).map(common);
}

async function ldapAuthentication({ url, base, name, password, find, admin, secret }) {
  const user = await library.authenticate({
    ldapOpts: { url },
    ...(admin ? { adminDn: admin, adminPassword: secret } : { userDn: name }),
    userPassword: password,
    userSearchBase: base,
    usernameAttribute: attribute(admin ? name : find),
    username: admin ? name : find,
    groupsSearchBase: base,
    groupClass: 'group',
    groupMemberAttribute: 'member',
  });
  return user.groups.map(common);
}

async function ldapts({ url, base, name, password, admin, secret }) {
  const client = new Client({ url });
  try {
    let who = name;
    if (admin) {
      await client.bind(admin, secret);
      const filter = new library.EqualityFilter({ attribute: attribute(name), value: name });
      const { searchEntries } = await client.search(base, { filter });
      if (searchEntries.length !== 1) throw new Error(`${searchEntries.length} accounts found`);
      who = searchEntries[0].dn;
    }
    await client.bind(who, password);
    return [];
  } finally {
    await client.unbind();
  }
}

// Both strategies of passport want a request, and answer by one of these methods.
function passport(strategy, { name, password }) {
  return new Promise((resolve, reject) => {
    const refused = (challenge) => reject(new Error(challenge?.message ?? challenge));
    const asked = Object.assign(Object.create(strategy), { success: resolve, fail: refused, error: reject });
    asked.authenticate({ body: { username: name, password }, query: {}, headers: {} }, {});
  });
}

async function passportLdapauth(login) {
  const server = {
    url: login.url,
    bindDN: login.admin,
    bindCredentials: login.secret,
    searchBase: login.base,
    searchFilter: '(|(sAMAccountName={{username}})(userPrincipalName={{username}}))',
    groupSearchBase: login.base,
    groupSearchFilter: '(member={{dn}})',
  };
  const user = await passport(new library({ server }), login);
  return user._groups.map(common);
}

async function passportActivedirectory(login) {
  const ldap = { url: login.url, baseDN: login.base, username: login.admin, password: login.secret };
  const verify = (profile, directory, done) =>
    directory.getGroupMembershipForUser(profile._json.dn, (error, groups) => done(error, { groups }));
  const user = await passport(new library({ integrated: false, ldap }, verify), login);
  return user.groups.map(common);
}

const ways = {
  activedirectory,
  activedirectory2: activedirectory,
  'ldap-authentication-3': ldapAuthentication,
  'ldap-authentication-4': ldapAuthentication,
  ldapts,
  'passport-activedirectory': passportActivedirectory,
  'passport-ldapauth': passportLdapauth,
};
const logIn = ways[process.argv[2]];

const lines = readline.createInterface({ input: process.stdin });
// Some libraries leave their connections open.
lines.on('close', () => process.exit());
lines.on('line', async (line) => {
  // Without an admin these two are null, which libraries take for a name.
  const { admin, secret, ...rest } = JSON.parse(line);
  const login = admin ? { admin, secret, ...rest } : rest;
  const told = (answer) => console.log(JSON.stringify({ id: login.id, ...answer }));
  await logIn(login).then(
    (groups) => told({ in: true, said: '', groups }),
    (error) => told({ in: false, said: String(error?.message || error?.description || error), groups: [] }),
  );
});
