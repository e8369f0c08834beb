use event_core::Event;

#[derive(Event)]
#[event("github.push")]
union GithubPush {
    commits: u32,
    files: u32,
}

fn main() {}
