//! The script with which people approve ↔ the bytes that `chaos_runner` verifies.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;

use dr_core::chaos::approval::Approval;
use dr_core::ids::OperationId;
use jiff::{SignedDuration, Timestamp};
use scenarios::files;

#[test]
#[expect(clippy::disallowed_methods, reason = "the script takes no expiry that has passed")]
fn the_script_signs_what_is_verified() {
    let operation = OperationId::parse("chaos-0123456789abcdef").unwrap();
    let expires_at =
        Timestamp::from_second(Timestamp::now().as_second()).unwrap() + SignedDuration::from_hours(2);
    for approver in ["grace@example.com", "Åsa Öberg"] {
        let approval = Approval {
            plan_hash: "0123456789abcdef".repeat(4),
            approver: approver.to_owned(),
            expires_at,
            code: String::new(),
        };
        let done = Command::new("python3")
            .arg(files::root().join("functions/chaos_runner/tools/approve.py"))
            .args(["--print-message", "--operation", operation.as_str(), "--plan", &approval.plan_hash])
            .args(["--approver", approver, "--expires", &expires_at.to_string()])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&approval.message(&operation))
        );
    }
}
