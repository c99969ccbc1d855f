//! One real login of somebody: as the application's user, through PAM, once.

use super::application::{self, Answers};
use super::facts::{Facts, SERVICE};
use super::finding::{Finding, quote};

pub(super) async fn login(facts: &Facts) -> Finding {
    let Some(login) = facts.login() else { return Finding::skipped("nobody was named") };
    if !facts.is_root() {
        return Finding::skipped("needs root, to log in as the application's user");
    }
    let user = match facts.application().await {
        Ok(user) => user,
        Err(cause) => return Finding::skipped(cause),
    };
    match application::login(&user, login).await {
        Ok(Answers { authenticate, account: Some(account), .. }) if account == SUCCESS => {
            Finding::ok(format!(
                "{} came in as the user {} at the service {SERVICE}: authenticate {authenticate}, acct_mgmt {account}",
                login.name, user.name
            ))
        }
        Ok(answers) => {
            let step = match &answers.account {
                Some(account) => format!("acct_mgmt answered {account}"),
                None => format!("authenticate answered {}", answers.authenticate),
            };
            let texts = answers.texts.join(" ");
            let texts = if texts.is_empty() { String::new() } else { format!(" ({texts})") };
            Finding::failure(format!("{} did not come in: {step}{texts}; it was tried once", login.name))
                .mend(format!("motion-ad check {}", quote(&login.name)))
        }
        Err(cause) => Finding::failure(format!("the login could not be tried: {cause}"))
            .mend(format!("motion-ad check {}", quote(&login.name))),
    }
}

const SUCCESS: &str = "PAM_SUCCESS";
