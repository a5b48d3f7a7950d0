//! Builds the programs of `examples/`, and runs them with the static and the shared library.
//!
//! They fetch a page from a server in this test.
//!
//! For another system, `CC` and `CXX` name its compilers, also with options, `TEST_LIBRARIES` names
//! the folder of the libraries, and `TEST_RUNNER` runs the programs, such as wine.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// The files and system libraries of a kind of system.
struct System {
    /// The shared library as programs load it.
    shared: &'static str,
    /// The file that a linker takes for it.
    linked: &'static str,
    /// The system libraries of the static library: `rustc --print native-static-libs` prints them.
    libraries: &'static str,
}

const SYSTEMS: [System; 2] = [
    System {
        shared: "lib{{crate_name}}.so",
        linked: "lib{{crate_name}}.so",
        libraries: "-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc",
    },
    System {
        shared: "{{crate_name}}.dll",
        linked: "lib{{crate_name}}.dll.a",
        libraries: "-lkernel32 -ladvapi32 -lntdll -luserenv -lws2_32 -ldbghelp -lunwind",
    },
];

const WORDS: &str =
    "   1 and\n   1 cat\n   1 dog\n   1 one\n   2 the\n   2 two\n   8 words in all\n";

/// The folder of the libraries: by default, those that Cargo built for this test.
fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("TEST_LIBRARIES") {
        return folder.into();
    }
    let test = std::env::current_exe().expect("a test is a file");
    test.parent().expect("a file is in a folder").to_owned()
}

/// The system of the libraries.
fn system() -> &'static System {
    let folder = folder();
    let built = |system: &&System| folder.join(system.shared).exists();
    let system = SYSTEMS.iter().find(built);
    system.unwrap_or_else(|| panic!("there is no shared library in {}", folder.display()))
}

/// The linker arguments of the static and of the shared library.
fn links() -> [(&'static str, Vec<String>); 2] {
    let (folder, system) = (folder(), system());
    let file = |name| folder.join(name).display().to_string();
    let mut archive = vec![file("lib{{crate_name}}.a")];
    archive.extend(system.libraries.split(' ').map(String::from));
    [("static", archive), ("shared", vec![file(system.linked)])]
}

/// A command that runs a program for the system of the libraries.
fn run(program: &Path) -> Command {
    let Some(runner) = std::env::var_os("TEST_RUNNER") else {
        return Command::new(program);
    };
    let mut run = Command::new(runner);
    run.arg(program);
    run
}

/// Starts a server with one page, `/page`. Returns its address.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener
        .local_addr()
        .expect("it has an address")
        .to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut bytes = [0; 512];
            while !request.ends_with(b"\r\n\r\n") {
                let read = stream.read(&mut bytes).unwrap_or(0);
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&bytes[..read]);
            }
            let answer: &[u8] = if request.starts_with(b"GET /page ") {
                b"HTTP/1.0 200 OK\r\n\r\none two\ntwo"
            } else {
                b"HTTP/1.0 404 Not Found\r\n\r\n"
            };
            let _ = stream.write_all(answer);
        }
    });
    address
}

/// Runs a program that counts words, rightly and not.
fn counts_words(program: impl Fn() -> Command, server: &str) {
    let run = |arguments: &[&str]| {
        let output = program()
            .args(arguments)
            .output()
            .expect("the program runs");
        let text = |bytes| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        (
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (done, printed, said) = run(&["--fetch", server, "/page"]);
    assert!(done && printed.starts_with(WORDS), "{printed}{said}");
    assert!(printed.contains("\" most often"), "{printed}");
    let (done, printed, said) = run(&["src/http.rs"]);
    assert!(done && printed.contains(" HTTP/1.0"), "{printed}{said}");
    let (done, _, said) = run(&["no-such-file"]);
    assert!(
        !done && said.contains("no-such-file: ") && said.contains("(os error 2)"),
        "{said}"
    );
    let (done, _, said) = run(&["--fetch", server, "/none"]);
    assert!(!done && said.contains("HTTP/1.0 404 Not Found"), "{said}");
    let (done, _, said) = run(&["--fetch", "127.0.0.1:1", "/page"]);
    assert!(
        !done && said.contains("127.0.0.1:1: ") && said.contains("(os error "),
        "{said}"
    );
}

/// Compiles a program, and runs it with each of the libraries.
fn builds_and_runs(compiler: &str, variable: &str, options: &[&str], source: &str) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = std::env::var(variable).unwrap_or_else(|_| compiler.to_owned());
    let server = serve();
    for (link, library) in links() {
        let program = folder().join(format!("{source}-{link}"));
        let mut words = compiler.split_whitespace();
        let mut build = Command::new(words.next().unwrap_or_default());
        build
            .args(words)
            .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
            .args(options);
        build
            .arg("-o")
            .arg(&program)
            .arg("-I")
            .arg(package.join("include"));
        build
            .arg(package.join("examples").join(source))
            .args(library);
        match build.status() {
            Ok(status) => assert!(status.success(), "{build:?}"),
            Err(error) if compiler == "c++" => return println!("SKIPPED: {compiler}: {error}"),
            Err(error) => panic!("{compiler}: {error}; install one, or name it in {variable}"),
        }
        let run = || {
            let mut run = run(&program);
            run.current_dir(package).env_remove("LD_LIBRARY_PATH");
            run
        };
        counts_words(run, &server);
    }
}

#[test]
fn a_c_program_counts_words() {
    builds_and_runs("cc", "CC", &["-std=c99"], "main.c");
}

#[test]
fn a_cpp_program_counts_words() {
    builds_and_runs("c++", "CXX", &["-std=c++20"], "main.cpp");
}

#[test]
fn a_python_program_counts_words() {
    if std::env::var_os("TEST_RUNNER").is_some() {
        return println!("SKIPPED: python3 loads no libraries of another system");
    }
    if Command::new("python3").arg("--version").output().is_err() {
        return println!("SKIPPED: there is no python3");
    }
    let run = || {
        let mut run = Command::new("python3");
        run.current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("examples/main.py");
        run.arg(folder().join(system().shared));
        run
    };
    counts_words(run, &serve());
}
