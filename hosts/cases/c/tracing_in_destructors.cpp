/* Calls at the end of a C++ program with an installed subscriber of tracing. */
#include "guest.h"
#include "upcall.h"
#include <pthread.h>
#include <thread>
static int nop(void*){ return 5; }
struct Late { const char*n; ~Late(){ int r=g_call(nop,nullptr); fprintf(stderr,"HOST: %s: g_call -> %d\n",n,r); char b[300]; if(upcall_last_message(b,300)>=0) fprintf(stderr,"HOST: %s last panic: %s\n",n,b);} };
static Late at_exit{"C++ static destructor"};
static pthread_key_t key; static int rounds;
static void key_dtor(void*p){ int r=g_call(nop,nullptr); fprintf(stderr,"HOST: key destructor round %d: g_call -> %d\n",++rounds,r); if(rounds<3) pthread_setspecific(key,p); }
int main(int c,char**v){
#ifdef TRACE
  g_trace_install();
#endif
  pthread_key_create(&key,key_dtor);
  std::thread([]{ thread_local Late l{"C++ thread_local destructor"}; (void)l.n; fprintf(stderr,"HOST: thread %s %d\n",l.n,g_call(nop,nullptr)); pthread_setspecific(key,(void*)1); }).join();
  fprintf(stderr,"HOST: main %d\n", g_call(nop,nullptr)); fprintf(stderr,"HOST: main returns\n"); return 0; }
