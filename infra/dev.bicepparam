// For trying out, with synthetic patients only: az deployment sub create --location REGION --parameters infra/dev.bicepparam
using 'main.bicep'

param environmentName = 'dev'
param location = 'eastus2'
param stage = 'dev'
param site = 'sandbox'
param emrEnvironment = 'DEV'
param emrFhirBase = 'https://mock-emr.example/fhir/R4'
param alertEmail = 'on-call@hospital.example'
param monthlyBudget = 100
