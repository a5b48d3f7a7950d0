/* The scenes: each measures one row of the figures. Arguments follow its name on the command
 * line. */
#ifndef SCENES_H
#define SCENES_H

/* On the thread's own stack. */
void own(char **arguments);

/* foreign COUNT: on one of COUNT foreign stacks. */
void foreign(char **arguments);

/* Alternating between the thread's own stack and a foreign one. */
void alternating(char **arguments);

/* nested own|foreign: in an upcall's downcall, and outside any, on the stack named. */
void nested(char **arguments);

/* Downcalls from Rust, or Go. */
void downcalls(char **arguments);

/* Creating and joining a thread that makes one call. */
void threads(char **arguments);

/* One thread, and two on the program's core and on the one before; nothing where there is none. */
void parallel(char **arguments);

#ifndef GO_GUEST
/* described COUNT KIB: on one of COUNT described stacks of KIB KiB, and lookups in random order. */
void described(char **arguments);

/* count KIND CALLS: nothing is measured; somebody counts instructions. */
void count(char **arguments);
#endif

#endif
