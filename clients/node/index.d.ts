/// <reference types="node" />

/** Logs users in by PAM on a host with motion-ad. See README.md. */

/** Result of a call. The names are those of the package's table (log-and-codes.md of motion-ad). */
export type Outcome =
  | 'success'
  | 'wrong_password'
  | 'unknown_user'
  | 'unmapped'
  | 'ambiguous'
  | 'logon_hours'
  | 'workstation'
  | 'password_expired'
  | 'must_change'
  | 'disabled'
  | 'account_expired'
  | 'locked_out'
  | 'account_restriction'
  | 'not_checked'
  | 'too_many_groups'
  | 'not_allowed'
  | 'denied'
  | 'password_refused'
  | 'change_forbidden'
  | 'change_unknown'
  | 'session_denied'
  | 'session_store'
  | 'refused'
  | 'unavailable'
  | 'misconfigured';

/** libpam's code. Those that motion-ad's module returns come first. */
export type Code =
  | 'PAM_SUCCESS'
  | 'PAM_AUTH_ERR'
  | 'PAM_USER_UNKNOWN'
  | 'PAM_PERM_DENIED'
  | 'PAM_ACCT_EXPIRED'
  | 'PAM_MAXTRIES'
  | 'PAM_NEW_AUTHTOK_REQD'
  | 'PAM_AUTHINFO_UNAVAIL'
  | 'PAM_SERVICE_ERR'
  | 'PAM_SYSTEM_ERR'
  | 'PAM_BUF_ERR'
  | 'PAM_CONV_ERR'
  | 'PAM_AUTHTOK_ERR'
  | 'PAM_AUTHTOK_RECOVERY_ERR'
  | 'PAM_TRY_AGAIN'
  | 'PAM_SESSION_ERR'
  | 'PAM_OPEN_ERR'
  | 'PAM_SYMBOL_ERR'
  | 'PAM_CRED_INSUFFICIENT'
  | 'PAM_CRED_UNAVAIL'
  | 'PAM_CRED_EXPIRED'
  | 'PAM_CRED_ERR'
  | 'PAM_NO_MODULE_DATA'
  | 'PAM_AUTHTOK_LOCK_BUSY'
  | 'PAM_AUTHTOK_DISABLE_AGING'
  | 'PAM_IGNORE'
  | 'PAM_ABORT'
  | 'PAM_AUTHTOK_EXPIRED'
  | 'PAM_MODULE_UNKNOWN'
  | 'PAM_BAD_ITEM'
  | 'PAM_CONV_AGAIN'
  | 'PAM_INCOMPLETE';

/** Why a session ended. */
export type EndReason =
  | 'closed'
  | 'replaced'
  | 'refused'
  | 'process_gone'
  | 'too_old'
  | 'unconfirmed'
  | 'kicked';

/** Limits of one call. */
export interface Limits {
  /** Aborts the call: the promise is rejected with the signal's reason. */
  signal?: AbortSignal;
  /** Milliseconds until the call is answered; 15000 by default. The outcome is then `unavailable`. */
  deadline?: number;
}

/** Origin of a call. */
export interface Origin extends Limits {
  /** The PAM service: a file in /etc/pam.d. Never text that a user typed. */
  service: string;
  /** The name as the user typed it. */
  user: string;
  /** The user's address (PAM_RHOST). Pass an IP address: libpam resolves a host name in DNS. */
  rhost?: string;
  /** The user's terminal (PAM_TTY). */
  tty?: string;
}

/** A password. Bytes are wiped before the function returns its promise; a string cannot be wiped. */
export type Password = Uint8Array | string;

export interface LoginOptions extends Origin {
  password: Password;
  /** Opens a session for the user if the login succeeds. */
  openSession?: boolean;
}

export interface ChangeOptions extends Origin {
  /** The present password. */
  password: Password;
  newPassword: Password;
}

/** A failure, or a success without a result. */
export interface Answer {
  /** True if, and only if, PAM reported success. Nothing else grants access. */
  ok: boolean;
  outcome: Outcome;
  /** libpam's code; `PAM_AUTHINFO_UNAVAIL` if PAM did not answer in time. */
  code: Code;
  /** Text for the user. It reveals no more than the domain reveals after the same password. Empty after a success
   * without a warning. */
  text: string;
}

export interface LoginAnswer extends Answer {
  /** Seconds until the password expires, if this is soon; otherwise null. */
  expiresIn: number | null;
  /** The session that was opened, by `openSession` or by a service with `session=auth`. */
  session: Session | null;
}

/** A session of a user. It ends with this process at the latest. */
export interface Session {
  /** Its id in motion-ad's register; null if the service does not use the module for sessions. */
  readonly id: string | null;
  /** Closes it. It is closed once; later calls return the same promise. */
  close(limits?: Limits): Promise<Answer>;
}

/** A session in motion-ad's register. Times are milliseconds since 1970. */
export interface RegisteredSession {
  id: string;
  /** The name as the user typed it. */
  user: string;
  /** user@domain. */
  principal: string;
  /** objectGUID of the account. */
  guid: string;
  service: string;
  rhost: string;
  tty: string;
  /** The server that the user is logged in to. */
  host: string;
  uid: number;
  pid: number;
  since: number;
  ended?: { at: number; reason: EndReason; detail: string } | null;
}

/** An event of a session. `cursor` is the place to go on after. */
export type SessionEvent =
  /** The first event without `after`: what happens from now on is reported. */
  | { event: 'ready'; cursor: string }
  /** Events were lost: compare your sessions with `sessions.list()`. */
  | { event: 'gap'; cursor: string }
  | { event: 'opened'; cursor: string; evicted: false; session: RegisteredSession }
  /** `evicted` is true if the user must be logged out. */
  | { event: 'ended'; cursor: string; evicted: boolean; session: RegisteredSession };

export interface WatchOptions {
  /** Goes on after this event, so that none is lost. */
  after?: string;
  /** Ends the loop: it throws the signal's reason. */
  signal?: AbortSignal;
  /** The command, if `motion-ad` is not in the PATH. */
  command?: string;
}

export interface Sessions {
  /** Yields the events of all sessions in the register, also those of other servers. */
  watch(options?: WatchOptions): AsyncGenerator<SessionEvent, void, undefined>;
  /** Resolves to the open sessions. */
  list(options?: { signal?: AbortSignal; command?: string }): Promise<RegisteredSession[]>;
}

/** Checks a password. Call it once for each attempt: a wrong password counts in the domain. */
export function login(options: LoginOptions): Promise<LoginAnswer>;

/** Changes a password, also an expired one. */
export function changePassword(options: ChangeOptions): Promise<Answer>;

/** Opens a session for a user whom the application has authenticated by other means. */
export function openSession(options: Origin): Promise<LoginAnswer>;

/** Sets how many calls of PAM run at once (16), and how many wait for them (256), in the whole process. */
export function configure(limits?: { threads?: number; queue?: number }): void;

export const sessions: Sessions;

/** The names of all outcomes. */
export const OUTCOMES: readonly Outcome[];
