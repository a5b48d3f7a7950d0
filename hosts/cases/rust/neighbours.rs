//! Effects of fibers and workers on the process around them: on children, signals, profilers, C's
//! own threads, and idle workers.
use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::{Duration, Instant};
// SAFETY: no code on fibers here borrows a thread-local across a wait; no initialiser waits.
const FIBERS: upcall::Fibers = unsafe { upcall::Fibers::promise() };
static SEEN: AtomicI32 = AtomicI32::new(0);
static WHO: [AtomicI32; 8] = [const { AtomicI32::new(0) }; 8];
static TIDS: [AtomicI32; 8] = [const { AtomicI32::new(0) }; 8];
extern "C" fn seen(_: c_int) { SEEN.fetch_add(1, SeqCst); }
extern "C" fn prof(_: c_int) {
    let t = unsafe { libc::gettid() };
    for i in 0..8 {
        if TIDS[i].load(SeqCst) == t || TIDS[i].compare_exchange(0, t, SeqCst, SeqCst).is_ok() { WHO[i].fetch_add(1, SeqCst); break; }
    }
}
fn handle(sig: c_int, f: extern "C" fn(c_int)) {
    unsafe { let mut sa: libc::sigaction = std::mem::zeroed(); sa.sa_sigaction = f as *const () as usize; sa.sa_flags = libc::SA_RESTART; libc::sigaction(sig, &sa, std::ptr::null_mut()); }
}
extern "C" fn thr(_: *mut c_void) -> *mut c_void {
    unsafe { let mut m: libc::sigset_t = std::mem::zeroed(); libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), &mut m);
      println!("  C thread made by C in a fiber: SIGINT blocked {}, SIGTERM blocked {}, SIGCHLD blocked {}", libc::sigismember(&m, libc::SIGINT), libc::sigismember(&m, libc::SIGTERM), libc::sigismember(&m, libc::SIGCHLD)); }
    std::ptr::null_mut()
}
fn main() {
    let which = std::env::args().nth(1).unwrap();
    match which.as_str() {
        "child" => {
            let script = "grep SigBlk /proc/self/status; kill -TERM $$; sleep 0.2; echo '  survived SIGTERM'";
            println!("std::process::Command in upcall::spawn:");
            FIBERS.spawn(move || { std::process::Command::new("sh").args(["-c", script]).status().unwrap(); }).join().unwrap();
            println!("std::process::Command in upcall::blocking, from the main thread:");
            upcall::blocking(move || { std::process::Command::new("sh").args(["-c", script]).status().unwrap(); });
            println!("C's system(3), downcall in a fiber:");
            FIBERS.spawn(|| upcall::downcall(|| unsafe { libc::system(c"grep SigBlk /proc/self/status; kill -TERM $$; sleep 0.2; echo '  survived SIGTERM'".as_ptr()); })).join().unwrap();
            println!("the same from a std thread:");
            std::thread::spawn(move || { std::process::Command::new("sh").args(["-c", script]).status().unwrap(); }).join().unwrap();
        }
        "prof" => {
            handle(libc::SIGPROF, prof);
            let it = libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 2000 }, it_value: libc::timeval { tv_sec: 0, tv_usec: 2000 } };
            unsafe { libc::setitimer(libc::ITIMER_PROF, &it, std::ptr::null_mut()); }
            let burn = || { if std::env::args().nth(2).as_deref() == Some("unblock") { unsafe { let mut m: libc::sigset_t = std::mem::zeroed(); libc::sigaddset(&mut m, libc::SIGPROF); libc::pthread_sigmask(libc::SIG_UNBLOCK, &m, std::ptr::null_mut()); } } let t = Instant::now(); let mut x = 0u64; while t.elapsed() < Duration::from_millis(800) { for i in 0..1000 { x = std::hint::black_box(x + i); } } println!("  burnt on thread {}", unsafe { libc::gettid() }); };
            println!("main is {}", unsafe { libc::gettid() });
            if std::env::args().nth(2).as_deref() == Some("std") { std::thread::spawn(burn).join().unwrap(); } else { FIBERS.spawn(burn).join().unwrap(); }
            for i in 0..8 { let n = WHO[i].load(SeqCst); if n > 0 { println!("  SIGPROF on thread {}: {n}", TIDS[i].load(SeqCst)); } }
        }
        "raise" => {
            handle(libc::SIGUSR1, seen); handle(libc::SIGPIPE, seen);
            FIBERS.spawn(|| upcall::downcall(|| unsafe {
                libc::raise(libc::SIGUSR1);
                let mut p = [0; 2]; libc::pipe(p.as_mut_ptr()); libc::close(p[0]);
                libc::write(p[1], b"x".as_ptr().cast(), 1);
            })).join().unwrap();
            println!("  C in a fiber raised SIGUSR1 and SIGPIPE: the host's handlers saw {} of 2", SEEN.load(SeqCst));
            std::thread::spawn(|| upcall::enter(|| upcall::downcall(|| unsafe { libc::raise(libc::SIGUSR1); })).unwrap()).join().unwrap();
            println!("  and on a thread of its own: {} of 3", SEEN.load(SeqCst));
        }
        "thread" => {
            FIBERS.spawn(|| upcall::downcall(|| unsafe { let mut t = 0; libc::pthread_create(&mut t, std::ptr::null(), thr2(), std::ptr::null_mut()); libc::pthread_join(t, std::ptr::null_mut()); })).join().unwrap();
        }
        // after its last Rust code, a thread is signalled until its end: records, stacks
        "leak" => {
            static T: Mutex<()> = Mutex::new(()); let _ = &T;
            upcall::attach().unwrap(); // the one thread that is to be attached at the end
            handle(libc::SIGUSR2, up);
            let n = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(2000);
            for k in 0..n {
                unsafe {
                    let mut t = 0; libc::pthread_create(&mut t, std::ptr::null(), quick(), std::ptr::null_mut());
                    for _ in 0..50 { if libc::pthread_kill(t, libc::SIGUSR2) != 0 { break; } }
                    libc::pthread_join(t, std::ptr::null_mut());
                }
                if k % (n / 4).max(1) == 0 { let s = upcall::snapshot(); println!("  {k}: {} threads attached, {:?}, served {}, rss {}", s.threads.len(), s.pool, SEEN.load(SeqCst), rss()); }
            }
            let s = upcall::snapshot(); println!("  end: {} threads attached, {:?}, served {}, rss {}", s.threads.len(), s.pool, SEEN.load(SeqCst), rss());
        }

        // three pairs of fibers write to and read from a pipe; every blocking call is made in
        // `blocking` (b) or in the fiber itself (f)
        "peer" => {
            let b = std::env::args().nth(2).as_deref() == Some("b");
            let run = move |f: Box<dyn FnOnce() + Send>| if b { upcall::blocking(f) } else { f() };
            use std::io::{Read, Write};
            // By then, upcall has reported the fibers behind blocked threads.
            std::thread::spawn(|| { std::thread::sleep(Duration::from_secs(20)); println!("no end within 20 s"); std::process::exit(0); });
            let mut all = vec![];
            for _ in 0..3 {
                let (mut r, mut w) = std::io::pipe().unwrap();
                all.push(FIBERS.spawn(move || { upcall::sleep(Duration::from_millis(1)); run(Box::new(move || w.write_all(&vec![0; 2 << 20]).unwrap())); }));
                all.push(FIBERS.spawn(move || { let (mut r2, mut b2) = (r.try_clone().unwrap(), vec![0; 1 << 20]); run(Box::new(move || r2.read_exact(&mut b2).unwrap())); upcall::sleep(Duration::from_millis(1)); let mut b2 = vec![0; 1 << 20]; run(Box::new(move || r.read_exact(&mut b2).unwrap())); }));
            }
            for j in all { j.join().unwrap(); }
            println!("OK");
        }
        "killable" => {
            for (what, child) in [("fiber", FIBERS.spawn(|| std::process::Command::new("sleep").arg("5").spawn().unwrap()).join().unwrap()),
                                  ("blocking", upcall::blocking(|| std::process::Command::new("sleep").arg("5").spawn().unwrap())),
                                  ("std thread", std::thread::spawn(|| std::process::Command::new("sleep").arg("5").spawn().unwrap()).join().unwrap())] {
                let mut child = child;
                let st = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
                unsafe { libc::kill(child.id() as i32, libc::SIGTERM); libc::kill(child.id() as i32, libc::SIGINT); }
                std::thread::sleep(Duration::from_millis(500));
                println!("  sleep(1) started in a {what}: {}; 500 ms after SIGTERM and SIGINT: {:?}", st.lines().find(|l| l.starts_with("SigBlk")).unwrap(), child.try_wait().unwrap().map(|s| s.to_string()));
                child.kill().unwrap(); child.wait().unwrap();
            }
        }
        "starve" => {
            // a fiber starts a busy one and sleeps for 1 ms; another worker is idle
            let j = FIBERS.spawn(|| { FIBERS.spawn(|| { let t = Instant::now(); while t.elapsed() < Duration::from_secs(5) { std::hint::spin_loop(); } }); let t = Instant::now(); upcall::sleep(Duration::from_millis(1)); t.elapsed() });
            println!("  sleep(1 ms) took {:?}", j.join().unwrap());
        }
        "suspended" => {
            for _ in 0..2 { FIBERS.spawn(|| upcall::downcall_on_fiber(|| c_sleeps())); }
            upcall::sleep(Duration::from_millis(100));
            println!("{}", upcall::snapshot());
            std::process::exit(0);
        }
        _ => panic!(),
    }
}
fn rss() -> String { std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap().to_string() }
extern "C" fn up(_: c_int) { let _ = upcall::enter(|| SEEN.fetch_add(1, SeqCst)); }
extern "C" fn quick_(_: *mut c_void) -> *mut c_void {
    if std::env::args().nth(3).is_some() { upcall::attach().unwrap(); }
    let _ = upcall::enter(|| ());
    // as in a C thread: malloc's cache of this thread holds memory
    unsafe { let mut p = [std::ptr::null_mut(); 64]; for (i, q) in p.iter_mut().enumerate() { *q = libc::malloc(i * 16); } for q in p { libc::free(q); } }
    std::ptr::null_mut()
}
fn quick() -> extern "C" fn(*mut c_void) -> *mut c_void { quick_ }
fn thr2() -> extern "C" fn(*mut c_void) -> *mut c_void { thr }

#[upcall::export(on_panic = ())]
extern "C" fn ExportedSleep() { upcall::sleep(Duration::from_secs(3600)); }
#[inline(never)]
extern "C" fn c_sleeps() { ExportedSleep(); }
