//! Whether the macros of the contracts name every rule that is written.

/// Compares what a macro lists, module by module, with the functions of these modules.
pub(super) fn assert_all_are_listed(list: &str, modules: &[(&str, &str)]) {
    for (module, text) in modules {
        let (_, rules) = list
            .split_once(&format!("            {module} {{\n"))
            .unwrap();
        let (rules, _) = rules.split_once('}').unwrap();
        let listed: Vec<_> = rules.split_whitespace().collect();
        let written: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("pub async fn "))
            .map(|line| line.split('<').next().unwrap())
            .collect();
        assert_eq!(listed, written, "{module}");
    }
}
