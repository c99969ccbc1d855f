import type {
  ChangeOptions,
  EndReason,
  LoginAnswer,
  LoginOptions,
  Origin,
  Answer,
  Outcome,
  RegisteredSession,
  Sessions,
} from './index';

/** A call of the application, without passwords. */
export interface FakeCall {
  call: 'login' | 'changePassword' | 'openSession' | 'close';
  service?: string;
  user?: string;
  rhost?: string;
  tty?: string;
  openSession?: boolean;
  id?: string;
}

/** The functions of the package without PAM, and what a test sets. */
export interface Fake {
  login(options: LoginOptions): Promise<LoginAnswer>;
  changePassword(options: ChangeOptions): Promise<Answer>;
  openSession(options: Origin): Promise<LoginAnswer>;
  configure(limits?: { threads?: number; queue?: number }): void;
  sessions: Sessions;
  OUTCOMES: readonly Outcome[];

  /** Sets a user. The outcome counts for the right password. */
  user(name: string, is?: { password?: string; outcome?: Outcome; text?: string; expiresIn?: number }): void;
  /** Plans the outcome of the next call, whatever its user and password. Several calls queue. */
  next(outcome: Outcome, more?: { text?: string; expiresIn?: number }): void;
  /** Sets the milliseconds that each call takes. */
  delay(milliseconds: number): void;
  /** Ends a session as motion-ad would; false if it is not open. */
  evict(id: string, reason?: EndReason, detail?: string): boolean;
  /** The calls so far. */
  readonly calls: FakeCall[];
  /** Forgets users, plans, calls and sessions. */
  reset(): void;
}

/** Creates a fake. */
export function createFake(): Fake;
